"""The simulated upstream: OpenAI and DashScope as the gateway's tests and benchmarks need them, with scripted faults.

``python -m benchmarks.upstream --listen HOST:PORT`` runs it alone; tests start it in their own loop with
`benchmarks.upstream.server.start`. It is a real HTTP server on real sockets that

* answers what the request says and nothing else: the same request gets the same bytes, directly or through a gateway
  (no clock, no counter, no random number; ids are a hash of the request without ``stream_options``, which a gateway
  may add);
* keeps a ledger of what it saw (method, path, headers, sha256 and length of the body) and of what it said (status,
  tokens, bytes and their sha256, and whether the client left), which tests compare with the gateway's records;
* misbehaves on demand: `script` lists the controls.

Paths served, each also under the path prefix that a script may ride in (``/sim:stall-after=3/v1/…``):

* ``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``, ``/v1/images/generations``, ``GET /v1/models``, and
  the same under ``/compatible-mode/v1``: JSON, and SSE where the protocol has it;
* ``/api/v1/services/aigc/text-generation/generation`` and ``…/multimodal-generation/generation``: DashScope's own
  protocol, JSON and SSE; image models answer with an image URL;
* ``GET /sim/requests[?id=…&limit=…&until=seen|finished&timeout-ms=…]``: the ledger, oldest first; ``until`` waits for
  the request of that id (at most 10 s, then 504);
* ``DELETE /sim/requests``: forgets it, and the counts; ``GET /sim/stats``: counts since the start or the last DELETE;
* ``POST /sim/open?id=…``: lets the newest request of that id go on that waits at ``gate-after``.

A request's id in the ledger is its ``x-sim-id`` header, else its ``x-request-id``, else a number of ours.

Rooms: `script` (controls) → `upload` (reads the request) → `openai` and `dashscope` (what to say, pure) → `delivery`
(says it, at the pace and with the faults of the script); `answers` holds what both protocols share, `ledger` remembers,
`server` ties them together.
"""
