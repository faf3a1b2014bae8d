"""Checks signatures with AWS's own library: sigv4.py <packages>

Serves as any service, as a proxy to any, and as the service that grants roles. Says where it listens, then a line for each
request: what its signature says, whether that is right, and what it carries.
"""

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

sys.path.insert(0, sys.argv[1])

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

# Keys that are known, with their secrets and tokens.
KEYS = {
    "AKIDOWN": ("own+secret/", None),
    "ASIAROLE": ("role&secret<", "token/of+the=role"),
    # Who has that role is told another secret.
    "ASIALIAR": ("what it is told is not this", "t"),
}
TOLD = {"arn:aws:iam::1:role/writer": "ASIAROLE", "arn:aws:iam::1:role/liar": "ASIALIAR"}

GRANTED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


lock = threading.Lock()


def checked(method, target, headers, body):
    """The key, region and service of a signature, and what is wrong with it."""
    scheme, fields = headers["Authorization"].split(" ", 1)
    fields = dict(field.strip().split("=", 1) for field in fields.split(","))
    key, date, region, service, end = fields["Credential"].split("/")
    names = fields["SignedHeaders"].split(";")
    secret, token = KEYS[key]
    said = {"key": key, "region": region, "service": service, "signed": names}
    time = headers["X-Amz-Date"]
    if (scheme, end, date) != ("AWS4-HMAC-SHA256", "aws4_request", time[:8]):
        return said, "scope"
    if headers["X-Amz-Security-Token"] != token:
        return said, "token"
    # AWS refuses what leaves one of these unsigned.
    must = {"host"} | {name.lower() for name in headers.keys() if name.lower().startswith("x-amz-")}
    if not must <= set(names) or names != sorted(names):
        return said, "headers"
    request = AWSRequest(method=method, url=target, data=body)
    for name in names:
        for value in headers.get_all(name):
            request.headers[name] = value
    request.context["timestamp"] = time
    signer = SigV4Auth(Credentials(key, secret, token), service, region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return said, None if signer.signature(text, request) == fields["Signature"] else "signature"


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # A proxy is told the whole URL.
        target = self.path if "://" in self.path else f"http://{self.headers['Host']}{self.path}"
        said, wrong = checked("POST", target, self.headers, body)
        coding = self.headers["Content-Encoding"]
        said.update(wrong=wrong, host=self.headers["Host"], target=self.path, coding=coding, role=None)
        if said["service"] == "sts":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            said["role"], said["session"] = form["RoleArn"], form["RoleSessionName"]
            key = TOLD[form["RoleArn"]]
            secret = KEYS[key][0].replace("&", "&amp;").replace("<", "&lt;").replace("not ", "")
            answer = GRANTED.format(key=key, secret=secret, token=KEYS[key][1])
        else:
            said["body"] = json.loads(gzip.decompress(body) if coding == "gzip" else body)
            answer = "{}"
        with lock:
            print(json.dumps(said), flush=True)
        answer = answer.encode()
        self.send_response(403 if wrong else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(json.dumps({"address": "127.0.0.1:%d" % server.server_address[1]}), flush=True)
server.serve_forever()
