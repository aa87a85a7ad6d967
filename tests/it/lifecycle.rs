//! Start, signals, stop: the process as its supervisor sees it.

use std::net::{TcpListener, TcpStream};

use crate::harness::Gateway;

#[test]
fn ready_means_that_every_listener_accepts() {
    let gateway = Gateway::start("");
    for addr in [gateway.http(), gateway.https(), gateway.metrics()] {
        TcpStream::connect(addr).expect("a ready gateway accepts");
    }
}

#[test]
fn an_address_that_is_taken_ends_the_start_with_a_message() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let listen = format!("[{{ ip: 127.0.0.1, port: {} }}]", addr.port());
    for place in [
        format!("apisix: {{ node_listen: {listen} }}"),
        format!("apisix: {{ ssl: {{ listen: {listen} }} }}"),
    ] {
        let mut gateway = Gateway::builder().bootstrap_last(&place).spawn();
        assert_eq!(gateway.wait_exit().code(), Some(2), "{place}");
        let said = format!("cannot listen on {addr}: Address already in use");
        assert!(gateway.log().contains(&said), "{}", gateway.log());
    }
}
