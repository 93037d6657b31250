"""The simulated upstream: every protocol of the gateway as its tests and benchmarks need them, with scripted faults.

``python -m benchmarks.upstream --listen HOST:PORT`` runs it alone; tests start it in their own loop with
`benchmarks.upstream.server.start`. It is a real HTTP server on real sockets that

* answers what the request says and nothing else: the same request gets the same bytes, directly or through a gateway
  (no clock, no counter, no random number; ids are a hash of the request without ``stream_options``, which a gateway
  may add). Only what was made (tasks, files, batches, jobs) is remembered, under such an id;
* keeps a ledger of what it saw (method, path, headers, sha256 and length of the body and of each file in it) and of
  what it said (status, usage, bytes and their sha256, and whether the client left), which tests compare with the
  gateway's records: the usage stands there under the names of `ledger.Usage`;
* misbehaves on demand: `script` lists the controls, `errors` the forms in which an error may come.

Paths served, each also under the path prefix that a script may ride in (``/sim:stall-after=3/v1/…``), with and without
a trailing slash:

* OpenAI, under ``/v1`` and ``/compatible-mode/v1``: ``chat/completions``, ``completions``, ``responses``,
  ``embeddings``, ``images/generations``, ``images/edits``, ``images/variations``, ``audio/speech``,
  ``audio/transcriptions``, ``audio/translations``; ``models``, ``files``, ``uploads``, ``batches``, ``fine_tuning`` and
  what is below them, with all methods: JSON, forms, bytes and SSE as the protocol has them;
* Anthropic, under ``/v1`` and ``/apps/anthropic/v1``: ``messages`` and ``messages/count_tokens``;
* DashScope, under ``/api/v1/services``: text-generation, multimodal-generation (images and speech too, as the model
  is), SpeechSynthesizer, embeddings and rerank; the tasks that make images and videos, and ``/api/v1/tasks``;
  ``/compatible-api/v1/reranks``;
* vLLM: ``/rerank``, ``/v1/rerank``, ``/v2/rerank``, ``/score``, ``/v1/score``;
* ``GET /results/…``: what the URLs in answers lead to, images, sound and films;
* ``GET /sim/requests[?id=…&limit=…&until=seen|finished&timeout-ms=…]``: the ledger, oldest first; ``until`` waits for
  the request of that id (at most 10 s, then 504);
* ``DELETE /sim/requests``: forgets it, and the counts; ``GET /sim/stats``: counts since the start or the last DELETE;
* ``POST /sim/open?id=…``: lets the newest request of that id go on that waits at ``gate-after``.

A request's id in the ledger is its ``x-sim-id`` header, else its ``x-request-id``, else a number of ours.

Rooms: `script` (controls) → `upload` and `parts` (read the request) → `routes` (who answers) → one for each family of
operations (what to say, pure but for `store`) → `delivery` (says it, at the pace and with the faults of the script);
`answers` holds what all protocols share, `fills` the bodies too large to hold, `errors` every protocol's errors;
`ledger` remembers requests, `store` what they made, `server` ties them together.
"""
