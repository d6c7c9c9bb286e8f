"""Operating system resources of a node: files, sockets, certificates, the service manager."""
