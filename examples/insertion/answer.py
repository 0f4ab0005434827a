"""A server that answers each connection with the address that it sees: python3 answer.py PORT"""

import socket
import sys

with socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    while True:
        connection, address = server.accept()
        with connection:
            connection.recv(4096)
            body = f"You are {address[0].removeprefix('::ffff:')}.\n"
            connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
