"""A haul client made of the standard library: log in, put a file, list, get it back, compare.
    python3 haul_client.py HOST PORT USER PASSWORD LOCAL REMOTE
What comes back is written to LOCAL.back. docs/PROTOCOL.md explains every line."""
import hashlib, json, os, socket, struct, sys

class Haul:
    """One connection, with one request under way at a time."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.id = 0

    def send(self, payload):
        self.socket.sendall(struct.pack(">I", len(payload)) + payload)

    def receive(self):
        length = int.from_bytes(self.input.read(4), "big")
        payload = self.input.read(length)  # waits for all of it
        if length == 0 or len(payload) < length:
            raise ConnectionError("the server closed the connection")
        return payload

    def request(self, **fields):
        self.send(json.dumps({"id": self.id, **fields}).encode())

    def reply(self, on_data=None):
        """What `ok` holds in the final reply; data that comes before it goes to `on_data`."""
        while True:
            payload = self.receive()
            if payload[0] == 1:
                on_data(payload[5:])
                continue
            message = json.loads(payload)
            if "error" in message:
                raise RuntimeError("{code}: {message}".format(**message["error"]))
            if message.get("id") == self.id and "ok" in message:
                return message["ok"]  # all others are `begin` and events

    def call(self, cmd, on_data=None, **fields):
        self.id += 1
        self.request(cmd=cmd, **fields)
        return self.reply(on_data)

    def put(self, local, remote):
        digest = hashlib.sha256()
        self.id += 1
        self.request(cmd="put", path=remote, size=os.path.getsize(local), digest="sha256")
        with open(local, "rb") as file:
            while chunk := file.read(128 * 1024):
                digest.update(chunk)
                self.send(struct.pack(">BI", 1, self.id) + chunk)
        self.request(cmd="end", digest="sha256:" + digest.hexdigest())
        return self.reply()

    def get(self, remote, local):
        digest = hashlib.sha256()
        with open(local + ".part", "wb") as file:
            keep = lambda chunk: (digest.update(chunk), file.write(chunk))
            received = self.call("get", keep, path=remote, digest="sha256")
        if received["digest"] != "sha256:" + digest.hexdigest():
            raise RuntimeError("the bytes that came are not those of the file")
        os.replace(local + ".part", local)
        return received

def tour(haul, user, password, local, remote):
    print("logged in as", haul.call("login", user=user, password=password)["user"])
    stored = haul.put(local, remote)
    print("put", stored["path"], stored["size"], stored["digest"])
    for entry in haul.call("ls", path="/")["entries"]:  # the first page
        print("ls ", entry["kind"], entry["size"], repr(entry["name"]))
    received = haul.get(stored["path"], local + ".back")
    print("got", stored["path"], received["size"], received["digest"])
    haul.call("quit")
    sys.exit(0 if received["digest"] == stored["digest"] else "the digests differ")

if __name__ == "__main__":
    tour(Haul(sys.argv[1], int(sys.argv[2])), *sys.argv[3:])
