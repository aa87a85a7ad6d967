"""What the configurations of all benches share: ports counted from one, files in one folder."""

import argparse
import pathlib


def bootstrap(args: argparse.Namespace, out: pathlib.Path) -> dict:
    def listen(port: int) -> dict:
        return {"ip": "127.0.0.1", "port": port}

    return {
        "deployment": {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}},
        "apisix": {
            "enable_ipv6": False,
            "enable_control": False,
            "node_listen": [listen(args.port)],
            "ssl": {"enable": False},
            "status": listen(args.port + 1),
        },
        "nginx_config": {
            "worker_processes": 1,
            "error_log": str(out / "error.log"),
            "http": {"access_log": str(out / "access.log")},
        },
        "plugin_attr": {"prometheus": {"export_addr": listen(args.port + 2)}},
        "claviger": {
            "pid_file": str(out / "claviger.pid"),
            "upgrade_sock": str(out / "upgrade.sock"),
            "limits": {"keepalive_requests": 0},
        },
    }
