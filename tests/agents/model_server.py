"""Serve the shipped starting policy over HTTP as vLLM does: /v1/completions on token ids, /v1/chat/completions on text.

The first word of the path chooses how the server misbehaves (`fault` below), the second one keeps requests apart:
http://127.0.0.1:PORT/busy_twice/7/v1. Prints its port and serves until it is killed. Only what the tests need is there.
"""

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import load_model

MODEL = load_model("builtin/demo-policy", device="cpu")
CONTEXT = 1024
KEY = "sk-canary-4711"
LOCK = threading.Lock()
REQUESTS = defaultdict(list)
"""Path prefix -> bodies."""
OTHER_STOP = 0
"""The id that the fault other_stop ends responses with."""


def sample(ids, body):
    sampler = Sampler(MODEL, rows=1, context=CONTEXT, temperature=body["temperature"], seed=0)
    ask = AskPolicy((), tuple(ids), body["max_tokens"], (body["seed"],))
    with LOCK:
        return sampler.respond(ask)


def completion(body, fault):
    response = sample(body["prompt"], body)
    ids, logprobs, finish = list(response.response_ids), list(response.logprobs), response.finish_reason
    stop_reason = None
    if fault == "long":
        ids, logprobs = ids + [5] * body["max_tokens"], logprobs + [-1.0] * body["max_tokens"]
        finish = "length"
    if fault == "drops_stop" and finish == "stop":
        ids, logprobs = ids[:-1], logprobs[:-1]
    if fault == "other_stop":
        ids, logprobs, finish, stop_reason = [5, OTHER_STOP], [-1.0, -2.0], "stop", OTHER_STOP
    if fault == "nothing":
        ids, logprobs = [], []
    if fault == "filtered":
        finish = "content_filter"
    choice = {"index": 0, "text": response.text, "finish_reason": finish, "stop_reason": stop_reason}
    as_ids = [f"token_id:{i}" for i in ids]
    tokens = [MODEL.chat.tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    shown = tokens if fault == "no_ids" else ["token_id:x"] * len(ids) if fault == "odd_ids" else as_ids
    choice["logprobs"] = {"tokens": shown, "token_logprobs": logprobs, "top_logprobs": None, "text_offset": []}
    if fault == "no_logprobs":
        choice["logprobs"] = None
    if fault == "fewer_logprobs":
        choice["logprobs"]["token_logprobs"] = logprobs[1:]
    if fault == "null_logprob":
        choice["logprobs"]["token_logprobs"][0] = None
    if fault not in ("no_ids", "odd_ids", "only_as_token_ids"):
        choice["token_ids"] = ids
        choice["prompt_token_ids"] = [*body["prompt"], 1] if fault == "changes_prompt" else body["prompt"]
    if fault == "negative_id":
        choice["token_ids"][0] = -1
    return {"id": "1", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice]}


def chat_completion(body, fault):
    text = MODEL.chat.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    response = sample(MODEL.chat.tokenizer.encode(text, add_special_tokens=False), body)
    content = None if fault == "nothing" else response.text
    finish = "content_filter" if fault == "filtered" else response.finish_reason
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish,
        "logprobs": None,
    }
    if fault == "thinks":
        choice["message"]["reasoning_content"] = "a thought"
    used = body["max_tokens"] + 1 if fault == "long" else len(response.response_ids)
    return {
        "id": "1",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": used},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, content_type="application/json", missing=0):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content) + missing))
        if status in (429, 500, 503):
            self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = bool(missing)

    def do_GET(self):
        if self.path.endswith("/v1/models"):
            if self.path.startswith("/no_list"):
                return self.answer(404, {"detail": "Not Found"})
            model = {"id": "demo", "object": "model", "created": 0, "owned_by": "us", "max_model_len": CONTEXT}
            return self.answer(200, {"object": "list", "data": [model]})
        self.answer(200, REQUESTS[self.path.removesuffix("/requests")])

    def do_POST(self):
        fault = self.path.split("/")[1]
        prefix, _, kind = self.path.partition("/v1")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        REQUESTS[prefix + "/v1"].append(body)
        number = len(REQUESTS[prefix + "/v1"])
        given = self.headers["Authorization"].removeprefix("Bearer ")
        if fault == "key" and given != KEY:
            return self.answer(
                401, {"error": {"message": f"Incorrect API key provided: {given}.\nTry another.", "code": 401}}
            )
        if fault == "refused":
            return self.answer(
                400, {"object": "error", "message": "maximum context length is 1024\ntokens", "code": 400}
            )
        if fault == "verbose":
            return self.answer(400, {"detail": [{"loc": "prompt"}] * 1000})
        if fault == "busy_twice" and number <= 2:
            return self.answer(429, {"error": {"message": "too many requests"}})
        if fault == "busy":
            return self.answer(429, {"error": {"message": "too many requests"}})
        if fault == "broken":
            return self.answer(500, b"<html>\n<b>Internal\x1b[31m Server Error</b></html>", "text/html")
        if fault == "drops" or (fault == "drops_once" and number == 1):
            self.close_connection = True
            return self.connection.close()
        if fault == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            return None
        if fault == "elsewhere":
            self.send_response(307)
            self.send_header("Location", self.path.replace("/elsewhere/", "/ok/"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if fault == "slow":
            time.sleep(1.0)
        if kind not in ("/completions", "/chat/completions"):
            return self.answer(404, {"detail": "Not Found"})
        if body["model"] != "demo":
            return self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        made = completion(body, fault) if kind == "/completions" else chat_completion(body, fault)
        if fault == "empty":
            made["choices"] = []
        if fault == "two":
            made["choices"] *= 2
        content = json.dumps(made).encode()
        if fault == "truncated":
            return self.answer(200, content[: len(content) // 2])
        if fault == "cut_once" and number == 1:
            return self.answer(200, content[: len(content) // 2], missing=len(content) - len(content) // 2)
        if fault == "html":
            return self.answer(200, b"<html>Welcome</html>", "text/html")
        return self.answer(200, content)


if __name__ == "__main__":
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    print(http.server_port, flush=True)
    http.serve_forever()
