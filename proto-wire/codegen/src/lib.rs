//! Server traits, clients and method tables from .proto files.
