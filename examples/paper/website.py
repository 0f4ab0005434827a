"""The website of the host `internet`, on one port, IPv4 and IPv6: python3 website.py PORT

  /            a page that tells whom it was sent to: the address that the server sees
  /bytes/N     N bytes
  /eicar.txt   a text with the signature that intrusion prevention knows
  POST         takes what it is sent and tells how much that was
"""

import http.server
import socket
import socketserver
import sys

EICAR = b"Scanners are tested with the EICAR-STANDARD-ANTIVIRUS-TEST-FILE.\n"


class Website(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            self.answer(f"This is the Internet. You are {self.client()}.\n".encode())
        elif self.path == "/eicar.txt":
            self.answer(EICAR)
        elif self.path.startswith("/bytes/") and self.path[7:].isdecimal():
            self.answer(bytes(i % 251 for i in range(251)) * (int(self.path[7:]) // 251 + 1), int(self.path[7:]))
        else:
            self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(f"{len(body)} bytes\n".encode())

    def answer(self, body, length=None):
        length = len(body) if length is None else length
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[:length])

    def client(self):
        return self.client_address[0].removeprefix("::ffff:")


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not HTTPServer's: it looks the server's name up, and there is nobody here to ask.
        socketserver.TCPServer.server_bind(self)


Server(("::", int(sys.argv[1])), Website).serve_forever()
