"""The standard library's `socketserver`, a thread for each connection."""

from socketserver import StreamRequestHandler, ThreadingTCPServer


class Ack(StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        for _line in self.rfile:
            self.wfile.write(b"ok\n")


class Server(ThreadingTCPServer):
    daemon_threads = True
    # The default of 5 would measure lost connection attempts in place of the server.
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Ack) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
