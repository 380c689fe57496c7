"""A client of the classic dialect: it reads orders from standard input, as a person types them.
    python3 classic_client.py HOST PORT
"login NAME PASSWORD", "ls", "cd", "mkdir", "put LOCAL [DIR]", "get PATH [LOCALDIR]", "quit" and so on;
orders with " && " between them go out in one piece. Names with spaces stand in double quotes.
With --torn each frame goes out in small pieces, the first of them in the middle of its length."""
import hashlib, json, os, shlex, socket, struct, sys

PIECE = 64 * 1024


class Classic:
    def __init__(self, host, port, torn):
        self.torn = torn
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, length):
        """Exactly so many bytes."""
        data = b""
        while len(data) < length:
            piece = self.socket.recv(min(PIECE, length - len(data)))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return data

    def frame(self, request):
        body = json.dumps(request).encode("utf-8")
        return struct.pack("<i", len(body)) + body

    def send(self, frames):
        if self.torn:
            for start, end in ((0, 2), (2, 3), (3, 7), (7, len(frames))):
                self.socket.sendall(frames[start:end])
        else:
            self.socket.sendall(frames)

    def reply(self):
        (length,) = struct.unpack("<i", self.receive(4))
        return json.loads(self.receive(length).decode("utf-8"))

    def order(self, line):
        words = shlex.split(line)
        if words[0] == "put":
            self.put(line, *words[1:])
        elif words[0] == "get":
            self.get(line)
        elif words[0] == "login":
            self.send(self.frame({"cmd": "login", "user": words[1], "psd": words[2]}))
            print(self.reply()["res"])
        else:
            self.send(self.frame({"cmd": line}))
            print(self.reply()["res"])

    def put(self, line, local, directory=""):
        size = os.path.getsize(local)
        with open(local, "rb") as file:
            digest = hashlib.md5(file.read()).hexdigest()
        request = {"cmd": line, "filename": os.path.basename(local), "src_dir": os.path.dirname(local),
                   "dst_dir": directory, "size": size, "file_hash": digest}
        self.send(self.frame(request))
        sent = 0
        with open(local, "rb") as file:
            while piece := file.read(PIECE):
                self.socket.sendall(piece)
                sent += len(piece)
                progress("up", sent, size)
        print(self.reply()["res"])

    def get(self, line):
        self.send(self.frame({"cmd": line, "size": None}))
        head = self.reply()
        print(head["res"])
        if "size" not in head:
            return  # refused: nothing follows
        received, digest = 0, hashlib.md5()
        path = os.path.join(head["dst_dir"] or ".", head["filename"])
        with open(path, "wb") as file:
            while received < head["size"]:
                piece = self.receive(min(PIECE, head["size"] - received))
                file.write(piece)
                digest.update(piece)
                received += len(piece)
                progress("down", received, head["size"])
        print("MD5 right" if digest.hexdigest() == head["file_hash"] else "MD5 WRONG")


def progress(way, done, size):
    filled = 30 * done // size
    end = "\n" if done == size else ""
    sys.stderr.write("\r%s [%s%s] %3d%%%s" % (way, "#" * filled, " " * (30 - filled), 100 * done // size, end))
    sys.stderr.flush()


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--torn"]
    client = Classic(arguments[0], int(arguments[1]), "--torn" in sys.argv)
    for line in map(str.strip, sys.stdin):
        if " && " in line:
            orders = line.split(" && ")
            client.send(b"".join(client.frame({"cmd": order}) for order in orders))
            for _ in orders:
                print(client.reply()["res"])
        elif line:
            client.order(line)
        if line == "quit":
            break


if __name__ == "__main__":
    main()
