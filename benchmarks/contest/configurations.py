"""The contestants' configuration files, each as its own documentation advises for a proxy that is measured.

All of them: one upstream, connections to it kept alive, no limits that the workloads would meet, bodies streamed where
they can be. ``nginx.conf`` of the upstream and the sink is here too.
"""

from __future__ import annotations

import json

from benchmarks.contest import asked

UPSTREAM_NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  log_format sizes '$uri $content_length';
  server {{
    listen 127.0.0.1:{upstream} backlog=4096; access_log off; default_type application/json;
    location / {{ return 200 '{answer}'; }}
    location = /v1/models {{ return 200 '{models}'; }}
  }}
  server {{
    listen 127.0.0.1:{sink}; access_log {folder}/sink.log sizes; default_type application/x-protobuf;
    location / {{ return 200 ''; }}
  }}
}}
"""
MODELS = json.dumps({"object": "list", "data": [{"id": asked.MODEL, "object": "model", "owned_by": "bench"}]})

NGINX = """\
daemon off; worker_processes 1; pid {folder}/contestant.pid; error_log stderr crit;
worker_rlimit_nofile 40000;
events {{ worker_connections 16384; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {folder}/body2; proxy_temp_path {folder}/proxy2; fastcgi_temp_path {folder}/fastcgi2;
  uwsgi_temp_path {folder}/uwsgi2; scgi_temp_path {folder}/scgi2;
  access_log {folder}/nginx-access.log combined buffer=64k flush=1s;
  upstream one {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://one; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_buffering off; proxy_read_timeout 300s;
    }}
  }}
}}
"""

_ENVOY_TRACING = """\
          tracing:
            random_sampling: {value: 100}
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                service_name: envoy
                http_service:
                  http_uri: {uri: "http://SINK/v1/traces", cluster: sink, timeout: 5s}
"""
_ENVOY = """\
layered_runtime:
  layers:
  - name: bench
    static_layer:
      tracing.opentelemetry.min_flush_spans: 512
      tracing.opentelemetry.flush_interval_ms: 1000
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": CONNECTIONS
      max_active_downstream_connections: 20000
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ADMIN}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: one
          codec_type: HTTP1
TRACING          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: FOLDER/NAME-access.log
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: "/"}, route: {cluster: one, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
CLUSTERS
"""
_CONNECTIONS = (
    "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)
_ENVOY_CLUSTER = """\
  - name: %s
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}]}
    load_assignment:
      cluster_name: %s
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}"""


def envoy(*, name: str, port: int, admin: int, folder: str, upstream: str, sink: str, tracing: bool) -> str:
    """Envoy's; `upstream` and `sink` are HOST:PORT."""
    clusters = [("one", upstream), ("sink", sink)]
    told = "\n".join(_ENVOY_CLUSTER % (one, one, address.rpartition(":")[2]) for one, address in clusters)
    text = _ENVOY.replace("TRACING", _ENVOY_TRACING if tracing else "").replace("CLUSTERS", told)
    for word, value in (
        ("CONNECTIONS", _CONNECTIONS),
        ("PORT", str(port)),
        ("ADMIN", str(admin)),
        ("FOLDER", folder),
        ("NAME", name),
        ("SINK", sink),
    ):
        text = text.replace(word, value)
    return text


LITELLM = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: "openai/{model}", api_base: "http://{upstream}/v1", api_key: sk-of-the-service}}
general_settings: {{master_key: "{key}"}}
litellm_settings: {{request_timeout: 600, telemetry: false, num_retries: 0}}
"""

SLUICEWAY = """\
listen: 127.0.0.1:{port}
workers: {workers}
observers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
state: sqlite:{folder}/{name}-state/state.db
services:
  - {{name: qwen, provider: dashscope, base_url: "http://{upstream}", api_keys: [sk-of-the-service]}}
  - {{name: spare, provider: dashscope, base_url: "http://{upstream}", api_keys: [sk-of-the-spare]}}
consumers:
  - {{name: bench, keys: [{key}]}}
model_apis:
  - name: chat
    scenario: text
    protocols: [openai]
    auth: consumers
    routing: {{by_model: [{{match: "qwen*", service: qwen}}, {{match: "*", service: spare}}]}}
    monitoring: {{metrics: {recording}, logging: {recording}, tracing: {recording}}}
  - name: embeddings
    scenario: embedding
    base_path: /embeddings
    protocols: [openai]
    auth: consumers
    routing: {{by_model: [{{match: "qwen*", service: qwen}}, {{match: "*", service: spare}}]}}
    monitoring: {{metrics: {recording}, logging: {recording}, tracing: {recording}}}
"""
