//! `config.yaml`, decoded.
