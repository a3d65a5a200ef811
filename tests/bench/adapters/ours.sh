#!/bin/bash
# Our agents: one at the caller, one at the callee, and a control server that is not measured.
# `prepare` makes the mesh and leaves both agents' keys, certificates and config on disk; `start` is
# then what a peer's start is: two proxies that read their config. HTTP/1.1 is routed by Host and
# callers are known by their user, as in any mesh; TCP and HTTP/2 have ports of their own.
. "$MB_ROOT/adapters/lib.sh"
: "${MESH_BIN:=$MB_ROOT/../../target/release}"
CTL=$MB_DIR/ctl
# What carries calls; the rest of the agent needs little.
export MESH_AGENT_WORKERS=$MB_THREADS TOKIO_WORKER_THREADS=1
export MESH_ADDR=127.0.0.1:$(P 7) MESH_TOKEN_FILE=$CTL/admin.token

names() { seq -f 'svc-%.0f' 0 "$LAST"; }

agent_files() { # NAME INBOUND HTTP ADMIN: the agent's settings, and its services from stdin
  local at=$MB_DIR/$1
  mkdir -p "$at/services.d"
  cat >"$at/services.d/host.toml"
  cat >"$at/agent.toml" <<E
node = "$1"
servers = ["127.0.0.1:$(P 7)"]
token_file = "$at/join.token"
data_dir = "$at/data"
services_dir = "$at/services.d"
socket = "$at/agent.sock"
address = "127.0.0.1"
inbound = "127.0.0.1:$2"
http = "$3"
admin = "127.0.0.1:$4"
access_log = "off"
E
}

caller_services() { # an instance has 256 upstreams at most, so a caller of many services has several
  local first
  for first in $(seq 0 250 "$LAST"); do
    cat <<E
[instance.web-$((first / 250))]
service = "web"
port = 1
user = "root"
upstreams = [$(names | sed -n "$((first + 1)),$((first + 250))p" | sed 's/.*/"&",/' | tr '\n' ' ')
$([ "$first" = 0 ] && echo "{ service = \"bulk\", listen = \"127.0.0.1:$(P 2)\" }, { service = \"pages\", listen = \"127.0.0.1:$(P 1)\" }")]
E
  done
}

callee_services() {
  names | while read -r name; do
    printf '[instance.%s]\nservice = "%s"\nport = %d\n' "$name" "$name" "${MB_HTTP_BACKEND#*:}"
  done
  printf '[instance.bulk]\nservice = "bulk"\nport = %d\n' "${MB_TCP_BACKEND#*:}"
  printf '[instance.pages]\nservice = "pages"\nport = %d\n' "${MB_H2_BACKEND#*:}"
}

policy() {
  { names; echo bulk; echo pages; } | while read -r name; do
    case $name in
      bulk) ;;
      pages) printf '[service.pages]\nprotocol = "http2"\n' ;;
      *) printf '[service.%s]\nprotocol = "http"\n' "$name" ;;
    esac
    printf '[[allow.%s]]\nname = "web"\nfrom = ["web"]\n' "$name"
  done
}

start_control() { # ready when it likes; agents do not wait for it
  setsid "$MESH_BIN/meshd" --config "$CTL/meshd.toml" >>"$CTL/log" 2>&1 </dev/null &
  echo $! >"$CTL/pid"
}
wait_control() {
  local code
  for _ in $(seq 100); do # 1 says that something is wrong, such as no agents yet: it answers
    code=0; "$MESH_BIN/mesh" status -o json >/dev/null 2>&1 || code=$?
    [ $code -le 1 ] && return 0
    sleep 0.1
  done
  echo "no control server: $(tail -3 "$CTL/log")" >&2; return 1
}
stop_control() { # by the pid recorded, and only what it recorded
  local pid; pid=$(cat "$CTL/pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null
  for _ in $(seq 50); do [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" && sleep 0.1; done
  [ -d "/proc/$pid" ] && kill -9 "$pid" 2>/dev/null
  rm -f "$CTL/pid"
}
start_agents() {
  bg in.log "$MESH_BIN/mesh-agent" --config "$MB_DIR/callee/agent.toml"
  bg out.log "$MESH_BIN/mesh-agent" --config "$MB_DIR/caller/agent.toml"
}
wait_for() { # CERTIFICATES-OF-CALLEE: both agents have their certificates, and calls arrive
  python3 "$MB_ROOT/adapters/ours_ready.py" "$1" "$(P 9)" "$(P 10)" "$(P 0)" "$(P 2)" "svc-0.mesh" "svc-$LAST.mesh"
}

prepare() { # once for each run of the harness: its process is our parent
  local made="$PPID $MB_PORT $MB_SERVICES"
  [ "$(cat "$CTL/made" 2>/dev/null)" != "$made" ] || return 0
  stop_all; stop_control
  rm -rf "$CTL" "$MB_DIR/caller" "$MB_DIR/callee"; mkdir -p "$CTL"
  set -e
  "$MESH_BIN/mesh" init --config "$CTL/meshd.toml" --token-out "$MESH_TOKEN_FILE" --name ctl \
    --data-dir "$CTL/data" --kek-file "$CTL/kek" --api "$MESH_ADDR" --api-address "$MESH_ADDR" \
    --raft "127.0.0.1:$(P 8)" --raft-address "127.0.0.1:$(P 8)" >"$CTL/log"
  start_control; wait_control
  caller_services | agent_files caller "$(P 6)" "127.0.0.1:$(P 0)" "$(P 9)"
  callee_services | agent_files callee "$(P 3)" "" "$(P 10)"
  "$MESH_BIN/mesh" token create --node caller --service web --out "$MB_DIR/caller/join.token" >>"$CTL/log"
  "$MESH_BIN/mesh" token create --node callee --service 'svc-*,bulk,pages' --out "$MB_DIR/callee/join.token" >>"$CTL/log"
  policy >"$CTL/policy.toml"
  "$MESH_BIN/mesh" apply "$CTL/policy.toml" >>"$CTL/log"
  start_agents
  wait_for $((MB_SERVICES + 3))
  set +e
  stop_all; stop_control
  echo "$made" >"$CTL/made"
}
start() {
  start_control
  start_agents
}
after_stop() { stop_control; }
version() { "$MESH_BIN/mesh-agent" --version; }
main "$@"
