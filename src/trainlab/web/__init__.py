"""What stands before each of our HTTP servers: the address, the connections, the limits."""
