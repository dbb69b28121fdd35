"""Python's hpack and h2 (Debian's packages) as the other side; driven by ../http2.ts.

  peer.py encode SEED COUNT     header lists as JSON lines: {"fields": [[name, value]...], "block": hex}, one table
  peer.py decode                JSON lines of blocks on stdin -> the fields, one table; {"size": n} changes its limit
  peer.py client SOCKET SEED N  N calls with frames of random sizes, padding, priorities and small windows; their bodies
                                must come back as they went (Content.Info answers the digest it was asked for, or NotFound)
"""
import json
import random
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, ConnectionTerminated, ResponseReceived, TrailersReceived
from h2.settings import SettingCodes
from hpack import Decoder, Encoder


def text(rng):
    kind = rng.randrange(4)
    length = rng.choice([0, 1, 5, 30, 126, 127, 128, 300, 2000])
    if kind == 0:
        return "".join(chr(rng.randrange(0x21, 0x7F)) for _ in range(length))
    if kind == 1:
        return "".join(rng.choice("abcdef0123456789") for _ in range(length))
    if kind == 2:
        return "".join(chr(rng.randrange(0x80, 0x100)) for _ in range(length))
    return rng.choice(["", "GET", "application/grpc", "trailers", "gzip, deflate"])


def encode(seed, count):
    rng = random.Random(seed)
    encoder = Encoder()
    names = ["x-%d" % i for i in range(30)] + ["content-type", ":path", "accept-encoding", "cookie", "te"]
    for _ in range(count):
        if rng.random() < 0.1:
            encoder.header_table_size = rng.choice([0, 100, 1000, 4096])
        fields = []
        for _ in range(rng.randrange(1, 20)):
            value = text(rng).encode("latin1")
            sensitive = rng.random() < 0.1
            fields.append((rng.choice(names).encode(), value, sensitive))
        block = encoder.encode(fields, huffman=rng.random() < 0.5)
        print(json.dumps({"fields": [[n.decode(), v.decode("latin1")] for n, v, _ in fields], "block": block.hex()}))


def decode():
    decoder = Decoder(max_header_list_size=2**24)
    for line in sys.stdin:
        asked = json.loads(line)
        if "size" in asked:
            decoder.max_allowed_table_size = asked["size"]
            continue
        fields = decoder.decode(bytes.fromhex(asked["block"]), raw=True)
        print(json.dumps([[n.decode("latin1"), v.decode("latin1")] for n, v in fields]))


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def client(path, seed, count):
    rng = random.Random(seed)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(path)
    conn = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    conn.initiate_connection()
    conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100, SettingCodes.HEADER_TABLE_SIZE: rng.choice([0, 4096])})
    bodies, statuses, done = {}, {}, set()
    pending = {}
    begun = 0
    while len(done) < count:
        while begun < count and len(pending) < 10:
            sid = conn.get_next_available_stream_id()
            digest = "sha256:" + "%064x" % rng.getrandbits(256)
            message = b"\x0a" + varint(len(digest)) + digest.encode()
            body = b"\x00" + len(message).to_bytes(4, "big") + message
            headers = [(":method", "POST"), (":scheme", "http"), (":path", "/containerd.services.content.v1.Content/Info"),
                       (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"),
                       ("containerd-namespace", "test")]
            headers += [("x-%d" % i, text(rng).encode("latin1", "ignore").decode("ascii", "ignore")) for i in range(rng.randrange(4))]
            headers = [(n, "".join(c for c in v if " " < c < "\x7f")) for n, v in headers]
            conn.send_headers(sid, headers, **({"priority_weight": 5} if rng.random() < 0.3 else {}))
            pending[sid] = (body, digest)
            begun += 1
            at = 0
            while at < len(body):
                end = min(len(body), at + rng.choice([1, 3, 20, 1000]))
                conn.send_data(sid, body[at:end], end_stream=end == len(body), pad_length=rng.choice([None, 0, 1, 200]))
                at = end
        sock.sendall(conn.data_to_send())
        data = sock.recv(rng.choice([1, 10, 65536]))
        if not data:
            raise SystemExit("the connection ended")
        for event in conn.receive_data(data):
            if isinstance(event, DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                if event.flow_controlled_length:
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (ResponseReceived, TrailersReceived)):
                statuses.setdefault(event.stream_id, {}).update(dict(event.headers))
            elif isinstance(event, StreamEnded):
                sid = event.stream_id
                _, digest = pending.pop(sid)
                found = statuses[sid]
                if found.get("grpc-status") != "5" or digest not in found.get("grpc-message", ""):
                    raise SystemExit("stream %d: %r" % (sid, found))
                done.add(sid)
            elif isinstance(event, (StreamReset, ConnectionTerminated)):
                raise SystemExit("ended by the server: %r" % event)
    print(len(done))


mode, args = sys.argv[1], sys.argv[2:]
if mode == "encode":
    encode(int(args[0]), int(args[1]))
elif mode == "decode":
    decode()
else:
    client(args[0], int(args[1]), int(args[2]))
