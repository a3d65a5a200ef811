#!/usr/bin/env python3
"""Writes the tables of docs/performance.md from results, so that no figure is typed by hand.

    ./tables.py digest results/RUN.jsonl [SUBJECT]   results of run.py -> tests/results/bench.json
    ./tables.py write                                tests/results/{bench,scale}.json -> docs/performance.md
    ./tables.py check                                whether the page says what the results say
"""
import json, os, re, subprocess, sys

import run as harness

ROOT = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(ROOT, "..", "results")
PAGE = os.path.join(ROOT, "..", "..", "docs", "performance.md")
BASELINES = ("direct", "floor")

# label, test, column of its runs, whether more is better
ROWS = [
    ("HTTP/1.1, 1 connection: p50, us", "h1_c1", "p50", False),
    ("HTTP/1.1, 64 connections: requests/s per proxy core", "h1_c64", "rps_core", True),
    ("... CPU seconds per 100,000 requests, both proxies", "h1_c64", "cpu_100k", False),
    ("HTTP/1.1, 256 connections: requests/s per proxy core", "h1_c256", "rps_core", True),
    ("HTTP/1.1, 2,000 requests/s: p50, us", "h1_r2000", "p50", False),
    ("... p99, us", "h1_r2000", "p99", False),
    ("... CPU seconds per 100,000 requests, both proxies", "h1_r2000", "cpu_100k", False),
    ("HTTP/2, 4 connections of 32 streams: requests/s per proxy core", "h2_4x32", "rps_core", True),
    ("gRPC, 4 connections of 32 streams: calls/s per proxy core", "grpc_4x32", "rps_core", True),
    ("gRPC, 2,000 calls/s: p50, us", "grpc_r2000", "p50", False),
    ("TCP, 64 bytes there and back: p50, us", "tcp_pp1", "p50", False),
    ("TCP, the same on 64 connections: per second and proxy core", "tcp_pp64", "rps_core", True),
    ("TCP, upload, 1 stream: Gb/s per proxy core", "tcp_up1", "gbps_core", True),
    ("TCP, upload, 8 streams: Gb/s per proxy core", "tcp_up8", "gbps_core", True),
    ("TCP, download, 1 stream: Gb/s per proxy core", "tcp_down1", "gbps_core", True),
    ("A new connection for each HTTP request: per second and proxy core", "conn_http", "rps_core", True),
    ("New TCP connections: per second and proxy core", "conn_tcp", "rps_core", True),
]
# label, path in a "mem" record
MEMORY = [
    ("Memory of both, idle, MiB", ("idle_pss",)),
    ("... for each of 1,000 idle HTTP connections, KiB", ("c1000_http", "per_conn_kb")),
    ("... for each of 1,000 idle TCP connections, KiB", ("c1000_tcp", "per_conn_kb")),
    ("... with 1,000 services, MiB", ("svc1000_pss",)),
    ("Start, 10 services, s", ("start_s10",)),
    ("Start, 1,000 services, s", ("start_s1000",)),
]
# label, path in the figures of scale.json
SCALE = [
    ("Agents enrolled per second", ("join", "enrolled_per_s")),
    ("First enrolment to all agents registered, certified and in sync, ms", ("join", "all_synced_ms")),
    ("Servers' CPU for that, all together, ms per agent", ("join", "servers_cpu_ms_per_agent")),
    ("Bytes on the wire for that, per agent", ("join", "bytes_per_agent")),
    ("Servers' memory, all together, KiB per agent", ("join", "servers_rss_kib_per_agent")),
    ("Idle: servers' CPU, all together, us per agent and second", ("idle", "servers_cpu_us_per_agent_s")),
    ("Idle: bytes on the wire per agent and second", ("idle", "bytes_per_agent_s")),
    ("Policy of all services, commit to an agent's acknowledgement, ms", ("policy_of_all_services", "commit_to_ack")),
    ("Policy of all services, commit to the last acknowledgement, ms", ("policy_of_all_services", "commit_to_last_ack")),
    ("Policy of one service, commit to its last acknowledgement, ms", ("policy_of_one_service", "commit_to_last_ack")),
    ("Health changes at an agent, to the acknowledgement of each concerned, ms", ("endpoint_change_to_ack",)),
    ("Leader killed: an agent of it is on another server after, ms", ("leader_killed", "agents_back")),
    ("Leader killed: a write is taken again after, ms", ("leader_killed", "written_again_ms")),
    ("Leader killed: every agent has that write after, ms", ("leader_killed", "all_in_sync_ms")),
    ("All servers killed and started: an agent is back after, ms", ("all_servers_killed", "agents_back")),
    ("All servers killed and started: every agent has a new write after, ms", ("all_servers_killed", "all_in_sync_ms")),
]

def dig(record, path):
    for key in path: record = (record or {}).get(key)
    return record

def three(values):
    """median, least and most"""
    found = [v for v in values if v is not None]
    return [harness.med(found), min(found), max(found)] if found else None

def digest(path, subject="ours"):
    recs = [json.loads(line) for line in open(path)]
    runs = [r for r in recs if r["rec"] == "run"]
    mem = [r for r in recs if r["rec"] == "mem"]
    meta = {k: v for k, v in recs[0].items() if k != "rec"}
    peers = list(dict.fromkeys(r["peer"] for r in runs + mem))
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    tests = {}
    for test, column in dict.fromkeys((test, column) for _, test, column, _ in ROWS):
        for peer in peers:
            own = [r["res"] for r in runs if r["peer"] == peer and r["test"] == test]
            good = [r for r in own if r and "failed" not in r]
            entry = tests.setdefault(test, {}).setdefault(peer, {"runs": len(own), "not_supported": bool(own) and not any(own), "failed": sum(1 for r in own if r and "failed" in r), "errors": sum(r["errors"] + r["non2xx"] for r in good)})
            entry[column] = None if peer == "direct" and column == "cpu_100k" else three([r.get(column) for r in good])
    size = [r for r in recs if r["rec"] == "size" and r["res"] and "failed" not in r["res"]]
    sizes = sorted({r["services"] for r in size})
    rates = {(peer, n): three([r["res"]["rps_core"] for r in size if r["peer"] == peer and r["services"] == n]) for peer in peers for n in sizes}
    kept = {peer: rates[peer, sizes[-1]][0] / rates[peer, sizes[0]][0] for peer in peers if len(sizes) > 1 and rates[peer, sizes[0]] and rates[peer, sizes[-1]]}
    memory = {peer: {" ".join(path): three([dig(r, path) for r in mem if r["peer"] == peer]) for _, path in MEMORY} for peer in peers}
    result = {"name": "bench", "commit": commit, "subject": subject, "meta": meta, "peers": peers, "tests": tests, "memory": memory, "kept_with_1000_services": kept}
    os.makedirs(RESULTS, exist_ok=True)
    with open(os.path.join(RESULTS, "bench.json"), "w") as out: out.write(json.dumps(result, indent=1, sort_keys=True) + "\n")

def cell(three_, entry=None):
    if entry and entry.get("not_supported"): return "not supported"
    if not three_: return "-"
    bad = sum((entry or {}).get(k, 0) for k in ("errors", "failed"))
    spread = f" ({harness.fmt(three_[1])}-{harness.fmt(three_[2])})" if three_[1] != three_[2] else ""
    return harness.fmt(three_[0]) + spread + (f", {bad} errors" if bad else "")

def row(label, values, entries, peers, subject, more):
    """best: the best of the real peers, by median"""
    real = [(values[p][0], p) for p in peers if p not in BASELINES and p != subject and values.get(p) and not (entries or {}).get(p, {}).get("errors")]
    best = (max if more else min)(real, default=None)
    own = values.get(subject)
    ratio = f"{own[0] / best[0]:.2f}" if own and best and best[0] else "-"
    return [label] + [cell(values.get(p), (entries or {}).get(p)) for p in [subject] + [p for p in peers if p != subject]] + [best[1] if best else "-", ratio]

def lines_of(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(r) + " |" for r in rows]

def bench_table(result):
    meta, peers, subject = result["meta"], result["peers"], result["subject"]
    others = [p for p in peers if p != subject]
    rows = []
    for label, test, column, more in ROWS:
        entries = result["tests"].get(test, {})
        if any(e["runs"] for e in entries.values()):
            rows.append(row(label, {p: entries[p].get(column) for p in peers}, entries, peers, subject, more))
    for label, path in MEMORY:
        values = {p: result["memory"].get(p, {}).get(" ".join(path)) for p in peers}
        if any(values.values()): rows.append(row(label, values, None, peers, subject, False))
    kept = {p: [share] * 3 for p, share in result["kept_with_1000_services"].items()}
    if kept: rows.append(row("Requests/s with 1,000 services, as a share of those with 10", kept, None, peers, subject, True))
    about = [
        f"Run of {meta['time']} at {result['commit']}: {meta.get('cpu', '?')}, {meta.get('cores', '?')} cores, {meta.get('memory_gib', '?')} GiB, {meta.get('os', '?')}, Linux {meta['kernel'].split('-')[0]}, congestion control {meta['cc']}.",
        f"Profile `{meta['profile']}`, {meta['rounds']} round(s) of {meta['secs']} s, five times that at fixed rates. Median (least-most). The ratio is {subject} to the best peer: for rates more is better, for times, CPU and memory less.",
    ]
    versions = [f"- `{name}`: {text}" for name, text in meta["versions"].items()]
    return about + [""] + versions + [""] + lines_of(["", subject] + others + ["best peer", "ratio"], rows)

def scale_table(result):
    figures, parameters = result["figures"], result["parameters"]
    def show(value):
        if isinstance(value, dict): return f"{value['p50_ms']:,} / {value['p99_ms']:,} / {value['max_ms']:,}"
        return "-" if value is None else f"{value:,}"
    rows = [[label, show(dig(figures, path))] for label, path in SCALE if dig(figures, path) is not None]
    verdict = "good" if result["verdict"]["good"] else "BAD: " + "; ".join(result["verdict"]["reasons"])
    about = f"Run of {result['date']} at {result['commit']}, {result['profile']} build, {result['cores']} cores, Linux {result['kernel']}, {result['took_s']} s: {parameters['agents']} agents, {parameters['services']} services, {parameters['upstreams']} upstreams each, {parameters['servers']} servers, {parameters['rounds']} changes of each kind. Verdict: {verdict}."
    return [about, ""] + lines_of(["", "figure, or p50 / p99 / max"], rows)

def page():
    """the page as the results have it"""
    text = open(PAGE).read()
    for name, table in (("bench", bench_table), ("scale", scale_table)):
        path = os.path.join(RESULTS, name + ".json")
        body = "\n".join(table(json.load(open(path)))) if os.path.exists(path) else "No run is recorded yet."
        text, found = re.subn(rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- /{name} -->)", lambda m: m[1] + body + "\n" + m[2], text, flags=re.S)
        if found != 1: sys.exit(f"{PAGE} has {found} places for {name}, expected one")
    return text

def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "digest" and len(sys.argv) in (3, 4): digest(*sys.argv[2:])
    elif what == "write":
        text = page()
        open(PAGE, "w").write(text)
    elif what == "check":
        if open(PAGE).read() != page(): sys.exit("docs/performance.md is not what the results say: run tests/bench/tables.py write")
    else: sys.exit(__doc__)

if __name__ == "__main__": main()
