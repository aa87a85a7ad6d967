//! Names of variables that every request has an answer to, found once at load.

/// A known name. What each means stands where it is answered (`plugins::vars`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// `uri` and `document_uri`.
    Uri,
    /// `request_uri`.
    RequestUri,
    /// `real_request_uri`.
    RealRequestUri,
    /// `args` and `query_string`.
    Args,
    /// `is_args`.
    IsArgs,
    /// `request_method` and `method`.
    Method,
    /// `server_protocol`.
    ServerProtocol,
    /// `request`.
    Request,
    /// `host`.
    Host,
    /// `content_type`.
    ContentType,
    /// `content_length`.
    ContentLength,
    /// `remote_user`.
    RemoteUser,
    /// `remote_addr`.
    RemoteAddr,
    /// `remote_port`.
    RemotePort,
    /// `realip_remote_addr`.
    PeerAddr,
    /// `realip_remote_port`.
    PeerPort,
    /// `server_addr`.
    ServerAddr,
    /// `server_port`.
    ServerPort,
    /// `server_name`.
    ServerName,
    /// `scheme`.
    Scheme,
    /// `https`.
    Https,
    /// `ssl_protocol`.
    SslProtocol,
    /// `ssl_cipher`.
    SslCipher,
    /// `ssl_server_name`.
    SslServerName,
    /// `ssl_session_reused`.
    SslSessionReused,
    /// `ssl_client_verify`.
    SslClientVerify,
    /// `ssl_client_s_dn`.
    SslClientSubject,
    /// `ssl_client_i_dn`.
    SslClientIssuer,
    /// `ssl_client_serial`.
    SslClientSerial,
    /// `ssl_client_fingerprint`.
    SslClientFingerprint,
    /// `ssl_client_raw_cert`.
    SslClientRawCert,
    /// `ssl_client_cert`.
    SslClientCert,
    /// `ssl_client_escaped_cert`.
    SslClientEscapedCert,
    /// `ssl_client_v_start`.
    SslClientStart,
    /// `ssl_client_v_end`.
    SslClientEnd,
    /// `ssl_client_v_remain`.
    SslClientRemain,
    /// `hostname`.
    Hostname,
    /// `pid`.
    Pid,
    /// `apisix_request_id` and `request_id`.
    RequestId,
    /// `route_id`.
    RouteId,
    /// `route_name`.
    RouteName,
    /// `service_id`.
    ServiceId,
    /// `service_name`.
    ServiceName,
    /// `consumer_name`.
    ConsumerName,
    /// `consumer_group_id`.
    ConsumerGroupId,
    /// `credential` and `credential_id`.
    CredentialId,
    /// `balancer_ip`.
    BalancerIp,
    /// `balancer_port`.
    BalancerPort,
    /// `status`.
    Status,
    /// `body_bytes_sent`.
    BodyBytesSent,
    /// `bytes_sent`.
    BytesSent,
    /// `request_length`.
    RequestLength,
    /// `request_time`.
    RequestTime,
    /// `time_local`.
    TimeLocal,
    /// `time_iso8601`.
    TimeIso8601,
    /// `msec`.
    Milliseconds,
    /// `upstream_addr`.
    UpstreamAddr,
    /// `upstream_status`.
    UpstreamStatus,
    /// `upstream_response_time`.
    UpstreamResponseTime,
    /// `upstream_connect_time`.
    UpstreamConnectTime,
    /// `upstream_header_time`.
    UpstreamHeaderTime,
    /// `upstream_scheme`.
    UpstreamScheme,
    /// `upstream_host`.
    UpstreamHost,
    /// `upstream_uri`.
    UpstreamUri,
}

impl Name {
    /// The variable of that name, if it is known.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, name)| *name)
    }
}

/// Several names may mean one variable.
const NAMES: &[(&str, Name)] = &[
    ("uri", Name::Uri),
    ("document_uri", Name::Uri),
    ("request_uri", Name::RequestUri),
    ("real_request_uri", Name::RealRequestUri),
    ("args", Name::Args),
    ("query_string", Name::Args),
    ("is_args", Name::IsArgs),
    ("request_method", Name::Method),
    ("method", Name::Method),
    ("server_protocol", Name::ServerProtocol),
    ("request", Name::Request),
    ("host", Name::Host),
    ("content_type", Name::ContentType),
    ("content_length", Name::ContentLength),
    ("remote_user", Name::RemoteUser),
    ("remote_addr", Name::RemoteAddr),
    ("remote_port", Name::RemotePort),
    ("realip_remote_addr", Name::PeerAddr),
    ("realip_remote_port", Name::PeerPort),
    ("server_addr", Name::ServerAddr),
    ("server_port", Name::ServerPort),
    ("server_name", Name::ServerName),
    ("scheme", Name::Scheme),
    ("https", Name::Https),
    ("ssl_protocol", Name::SslProtocol),
    ("ssl_cipher", Name::SslCipher),
    ("ssl_server_name", Name::SslServerName),
    ("ssl_session_reused", Name::SslSessionReused),
    ("ssl_client_verify", Name::SslClientVerify),
    ("ssl_client_s_dn", Name::SslClientSubject),
    ("ssl_client_i_dn", Name::SslClientIssuer),
    ("ssl_client_serial", Name::SslClientSerial),
    ("ssl_client_fingerprint", Name::SslClientFingerprint),
    ("ssl_client_raw_cert", Name::SslClientRawCert),
    ("ssl_client_cert", Name::SslClientCert),
    ("ssl_client_escaped_cert", Name::SslClientEscapedCert),
    ("ssl_client_v_start", Name::SslClientStart),
    ("ssl_client_v_end", Name::SslClientEnd),
    ("ssl_client_v_remain", Name::SslClientRemain),
    ("hostname", Name::Hostname),
    ("pid", Name::Pid),
    ("apisix_request_id", Name::RequestId),
    ("request_id", Name::RequestId),
    ("route_id", Name::RouteId),
    ("route_name", Name::RouteName),
    ("service_id", Name::ServiceId),
    ("service_name", Name::ServiceName),
    ("consumer_name", Name::ConsumerName),
    ("consumer_group_id", Name::ConsumerGroupId),
    ("credential", Name::CredentialId),
    ("credential_id", Name::CredentialId),
    ("balancer_ip", Name::BalancerIp),
    ("balancer_port", Name::BalancerPort),
    ("status", Name::Status),
    ("body_bytes_sent", Name::BodyBytesSent),
    ("bytes_sent", Name::BytesSent),
    ("request_length", Name::RequestLength),
    ("request_time", Name::RequestTime),
    ("time_local", Name::TimeLocal),
    ("time_iso8601", Name::TimeIso8601),
    ("msec", Name::Milliseconds),
    ("upstream_addr", Name::UpstreamAddr),
    ("upstream_status", Name::UpstreamStatus),
    ("upstream_response_time", Name::UpstreamResponseTime),
    ("upstream_connect_time", Name::UpstreamConnectTime),
    ("upstream_header_time", Name::UpstreamHeaderTime),
    ("upstream_scheme", Name::UpstreamScheme),
    ("upstream_host", Name::UpstreamHost),
    ("upstream_uri", Name::UpstreamUri),
];
