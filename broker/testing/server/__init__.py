"""`fluffle test-server`: a broker for tests in any language, with HTTP for what is inside."""
