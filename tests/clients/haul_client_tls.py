"""The client of haul_client.py inside of TLS. It knows the server by its certificate's fingerprint.
    python3 haul_client_tls.py FINGERPRINT HOST PORT USER PASSWORD LOCAL REMOTE
"""
import hashlib, ssl, sys
from haul_client import Haul, tour

class EncryptedHaul(Haul):
    def __init__(self, host, port, fingerprint):
        super().__init__(host, port)
        tls = ssl.create_default_context()
        # No authority and no name is asked: the fingerprint says more than both.
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        shown = hashlib.sha256(self.socket.getpeercert(binary_form=True)).hexdigest()
        if "sha256:" + shown != fingerprint:
            raise ConnectionError("another server answers there: sha256:" + shown)
        self.input = self.socket.makefile("rb")

if __name__ == "__main__":
    tour(EncryptedHaul(sys.argv[2], int(sys.argv[3]), sys.argv[1]), *sys.argv[4:])
