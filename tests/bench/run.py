#!/usr/bin/env python3
"""Mesh-path benchmark: load generator -> outbound proxy -> mTLS -> inbound proxy -> backend, peers interleaved.
See README.md. Python 3 standard library only. All traffic stays on 127.0.0.1 inside a network namespace made here."""
import argparse, glob, json, os, re, shutil, signal, socket, statistics as st, subprocess as sp, sys, time

ROOT = os.path.dirname(os.path.abspath(__file__))
MB = os.path.join(ROOT, "bin", "meshbench")
CERTS = os.path.join(ROOT, "state", "certs")
BE = {"http": "127.0.0.1:9001", "h2": "127.0.0.1:9002", "tcp": "127.0.0.1:9003"}
DEFAULT_PEERS = "direct,floor,envoy,envoy-h1,haproxy,haproxy-h2,haproxy28,nginx,traefik"

# name: (port kind, client arguments, seconds factor, headline column, higher is better, group)
TESTS = {
    "h1_c1":      ("http", "http --conns 1", 1, "p50", False, "h1"),
    "h1_c16":     ("http", "http --conns 16", 1, "rps", True, "h1"),
    "h1_c64":     ("http", "http --conns 64", 1, "rps", True, "h1"),
    "h1_c256":    ("http", "http --conns 256", 1, "rps", True, "h1"),
    "h1_r2000":   ("http", "http --conns 64 --rate 2000", 5, "p50", False, "rate"),
    "h1_r500":    ("http", "http --conns 16 --rate 500", 5, "p50", False, "rate"),
    "h2_4x32":    ("h2", "h2 --conns 4 --streams 32", 1, "rps", True, "h2"),
    "h2_64x1":    ("h2", "h2 --conns 64 --streams 1", 1, "rps", True, "h2"),
    "grpc_4x32":  ("h2", "h2 --grpc --conns 4 --streams 32", 1, "rps", True, "h2"),
    "grpc_r2000": ("h2", "h2 --grpc --conns 8 --streams 8 --rate 2000", 5, "p50", False, "rate"),
    "tcp_pp1":    ("tcp", "tcp --mode pingpong --conns 1", 1, "p50", False, "tcp"),
    "tcp_pp64":   ("tcp", "tcp --mode pingpong --conns 64", 1, "rps", True, "tcp"),
    "tcp_up1":    ("tcp", "tcp --mode upload --conns 1", 1, "gbps", True, "tcp"),
    "tcp_up8":    ("tcp", "tcp --mode upload --conns 8", 1, "gbps", True, "tcp"),
    "tcp_down1":  ("tcp", "tcp --mode download --conns 1", 1, "gbps", True, "tcp"),
    "conn_http":  ("http", "http --close --conns 16", 1, "rps", True, "conn"),
    "conn_tcp":   ("tcp", "tcp --mode connect --conns 16", 1, "rps", True, "conn"),
}

# peers that are opaque to HTTP: shown, but no candidate for "best peer" in the HTTP tests
L4_ONLY = {"ztunnel"} | set(os.environ.get("MB_L4_ONLY", "").split(","))

def machine():
    """what it ran on, by what the system says of itself"""
    first = lambda path, key: next((l.split(key)[1].strip(" \t:=\n\"") for l in open(path) if l.startswith(key)), "?")
    return {"cpu": first("/proc/cpuinfo", "model name"), "cores": os.cpu_count(), "memory_gib": round(int(first("/proc/meminfo", "MemTotal").split()[0]) / 2**20), "os": first("/etc/os-release", "PRETTY_NAME")}

def sh(cmd, **k): return sp.run(cmd, shell=True, capture_output=True, text=True, **k)

def certs():
    if os.path.exists(CERTS + "/server.both.pem"): return
    os.makedirs(CERTS, exist_ok=True)
    def run(c):
        r = sh(c, cwd=CERTS)
        if r.returncode: sys.exit("openssl: " + r.stderr)
    key = "openssl ecparam -name prime256v1 -genkey -noout -out "
    run(key + "ca.key"); run("openssl req -x509 -new -key ca.key -sha256 -days 30 -subj '/CN=mesh test CA' -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem")
    for name, cn, san in (("client", "client", "URI:spiffe://mesh.test/ns/default/sa/client"),
                          ("server", "backend", "DNS:backend.mesh.test,URI:spiffe://mesh.test/ns/default/sa/backend")):
        open(f"{CERTS}/{name}.ext", "w").write(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={san}\n")
        run(f"{key}{name}.raw && openssl pkcs8 -topk8 -nocrypt -in {name}.raw -out {name}.key && openssl req -new -key {name}.key -subj '/CN={cn}' -out {name}.csr && "
            f"openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -sha256 -extfile {name}.ext -out {name}.pem && cat {name}.pem {name}.key > {name}.both.pem")

def build():
    src = os.path.join(ROOT, "tool", "meshbench.rs")
    newest = max(os.path.getmtime(p) for p in glob.glob(os.path.join(ROOT, "tool", "*.rs")))
    if not os.path.exists(MB) or os.path.getmtime(MB) < newest:
        os.makedirs(os.path.dirname(MB), exist_ok=True)
        r = sh(f"rustc -O -C target-cpu=native --edition 2021 -o {MB} {src}")
        if r.returncode: sys.exit(r.stderr)

def wait_port(port, secs=20):
    end = time.time() + secs
    while time.time() < end:
        try: socket.create_connection(("127.0.0.1", int(port)), 1).close(); return True
        except OSError: time.sleep(0.05)
    return False

class Peer:
    seq = 0
    def __init__(self, name, a, services=10, tag="", script=None):
        Peer.seq += 1
        self.name, self.a, self.services = name, a, services
        self.script = script or os.path.join(ROOT, "adapters", name + ".sh")
        if not os.path.exists(self.script): sys.exit(f"no adapter {self.script}")
        self.dir = os.path.join(ROOT, "state", f"{name}{tag}")
        self.env = dict(os.environ, MB_ROOT=ROOT, MB_DIR=self.dir, MB_CERTS=CERTS, MB_HTTP_BACKEND=BE["http"], MB_H2_BACKEND=BE["h2"], MB_TCP_BACKEND=BE["tcp"],
                        MB_PORT=str(10000 + 20 * Peer.seq), MB_CPUS=a.proxy_cpus, MB_THREADS=str(a.threads), MB_SERVICES=str(services))
        self.up = self.prepared = False
    def call(self, c, *more):
        r = sp.run(["bash", self.script, c, *more], env=self.env, stdout=sp.PIPE, stderr=sp.PIPE if c != "start" else sp.DEVNULL, stdin=sp.DEVNULL, text=True)
        return r.stdout.strip()
    def start(self):
        os.makedirs(self.dir, exist_ok=True)
        if not self.prepared: self.prepare()
        t = time.time(); self.call("start"); self.up = True
        self.ports = {k: self.call(k + "_port") for k in ("http", "h2", "tcp")}
        for k, p in self.ports.items():
            if p and not wait_port(p, self.a.start_timeout): print(f"!! {self.name}: {k} port {p} did not open", file=sys.stderr); self.ports[k] = ""
        ib = self.call("inbound_port")
        if ib: wait_port(ib, self.a.start_timeout)
        self.t_start = time.time() - t
        self.pids = self.call("pids").split()
        return self
    def prepare(self):
        """what a subject needs once before it can be started like a peer, such as keys from its own CA"""
        t = time.time()
        r = sp.run(["bash", self.script, "prepare"], env=self.env, capture_output=True, stdin=sp.DEVNULL, text=True)
        if r.returncode: self.call("stop"); sys.exit(f"{self.name}: prepare failed: {r.stderr.strip() or r.stdout.strip()}")
        self.prepared, self.t_prepare = True, time.time() - t
    def stop(self):
        if self.up: self.call("stop"); self.up = False
    def mem(self):
        rss = pss = 0
        for p in self.call("pids").split():
            try:
                rss += int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{p}/status").read()).group(1))
                pss += int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{p}/smaps_rollup").read(), re.M).group(1))
            except (OSError, AttributeError): pass
        return rss / 1024, pss / 1024

def realtime(pids, on):
    """SCHED_FIFO 1 for every thread of these processes, or back to normal (nice values are useless here: with
    kernel.sched_autogroup_enabled they only compare within one terminal)"""
    for p in pids:
        try:
            for t in os.listdir(f"/proc/{p}/task"): os.sched_setscheduler(int(t), os.SCHED_FIFO if on else os.SCHED_OTHER, os.sched_param(1 if on else 0))
        except OSError: pass

def lowest():
    os.setsid()
    try: open("/proc/self/autogroup", "w").write("19")
    except OSError: pass

def client(a, peer, test, secs=None, rt=False, host=None):
    kind, args, factor, *_ = TESTS[test]
    port = peer.ports.get(kind)
    if not port: return None
    extra = peer.call("client_args", kind)
    d = secs or a.secs * factor
    cmd = (["taskset", "-c", a.load_cpus] if a.load_cpus else []) + [MB] + args.split() + ["--target", f"127.0.0.1:{port}", "--duration", str(d), "--warmup", str(a.warmup),
        "--host", host or f"svc-{peer.services // 2}.mesh", "--pids", ",".join(peer.pids) or "0", "--other", str(a.be_pid)] + extra.split()
    spin = []
    if TESTS[test][3] == "p50" and a.keep_awake:
        spin = [sp.Popen(["taskset", "-c", str(c), MB, "spin", "--secs", str(d + a.warmup + 5)], preexec_fn=lowest) for c in range(os.cpu_count())]
    if rt:
        realtime(peer.pids + [a.be_pid], True)
        cmd = ["chrt", "-f", "1"] + cmd
    try:
        r = sp.run(cmd, capture_output=True, text=True, timeout=d + 30)
        j = json.loads(r.stdout)
    except Exception as e:
        return {"failed": f"{e!r}"[:200]}
    finally:
        for x in spin: x.kill(); x.wait()
        if rt: realtime(peer.pids + [a.be_pid], False)
    j["cpu_100k"] = j["proxy_cpu"] / j["ok"] * 1e5 if j["ok"] else None
    j["rps_core"] = j["ok"] / j["proxy_cpu"] if j["proxy_cpu"] > 0.01 else None
    gb = j["gbps"] * j["secs"] / 8
    j["cpu_gb"] = j["proxy_cpu"] / gb if gb > 0.01 else None       # CPU seconds per gigabyte carried
    j["gbps_core"] = gb * 8 / j["proxy_cpu"] if gb > 0.01 and j["proxy_cpu"] > 0.01 else None
    j["sw_req"] = j["proxy_switches"] / j["ok"] if j["ok"] else None
    return j

def check(peer):
    """one request over each port, and the mTLS port must refuse a client without a certificate"""
    out = []
    for kind, t in (("http", "h1_c1"), ("h2", "grpc_4x32"), ("tcp", "tcp_pp1")):
        if not peer.ports.get(kind): out.append(f"{kind}:not supported"); continue
        j = client(peer.a, peer, t, secs=0.2)
        out.append(f"{kind}:" + ("ok" if j and j.get("ok") and not j["errors"] and not j["non2xx"] else "FAIL " + json.dumps(j)[:300]))
    ib = peer.call("inbound_port")
    if ib:
        r = sh(f"(printf 'GET / HTTP/1.1\\r\\nHost: svc-0.mesh\\r\\nConnection: close\\r\\n\\r\\n'; sleep 0.5) | timeout 5 openssl s_client -connect 127.0.0.1:{ib} -CAfile {CERTS}/ca.pem -alpn http/1.1 -servername backend.mesh.test -quiet")
        out.append("no-cert:" + ("ACCEPTED!" if " 200" in r.stdout else "refused"))
        r = sh(f"(printf 'GET / HTTP/1.1\\r\\nHost: svc-0.mesh\\r\\nConnection: close\\r\\n\\r\\n'; sleep 0.5) | timeout 5 openssl s_client -connect 127.0.0.1:{ib} -CAfile {CERTS}/ca.pem -cert {CERTS}/client.pem -key {CERTS}/client.key -alpn http/1.1 -servername backend.mesh.test -verify_return_error")
        m = re.search(r"New, (\S+), Cipher is (\S+)", r.stdout); out.append("with-cert:" + ("200 " if " 200" in r.stdout else "no ") + (m.group(1) + "/" + m.group(2) if m else "?"))
    return " ".join(out)

def idle_mem(a, peer, kind, n=1000):
    port = peer.ports.get(kind)
    if not port: return None
    before = peer.mem()
    extra = peer.call("client_args", kind).split()
    p = sp.Popen([MB, "idle", "--target", f"127.0.0.1:{port}", "--conns", str(n), "--proto", kind, "--host", f"svc-{peer.services // 2}.mesh"] + extra, stdin=sp.PIPE, stdout=sp.PIPE, text=True)
    line = p.stdout.readline().split()
    time.sleep(1.0)
    c0 = cpu_of(peer.pids); t0 = time.time(); time.sleep(3); idle_cpu = (cpu_of(peer.pids) - c0) / (time.time() - t0)
    m = peer.mem()
    out, _ = p.communicate("\n", timeout=30)
    return {"rss": m[0], "pss": m[1], "rss_before": before[0], "pss_before": before[1], "per_conn_kb": (m[1] - before[1]) * 1024 / n, "opened": int(line[1]), "errors": int(line[3]), "idle_cpu_pct": idle_cpu * 100, "client": json.loads(out)}

def syscalls(a, peer, test):
    """system calls per request of both proxies (strace -c; slow, so only the counts mean anything)"""
    out = os.path.join(peer.dir, "strace.txt")
    pids = peer.call("pids").split()
    if not pids or not shutil.which("strace") or not peer.ports.get(TESTS[test][0]): return None
    client(a, peer, test, secs=0.3)
    tr = sp.Popen(["strace", "-f", "-c", "-o", out] + sum([["-p", p] for p in pids], []), stderr=sp.DEVNULL)
    time.sleep(0.7)
    r = client(a, peer, test, secs=2)
    tr.send_signal(signal.SIGINT); tr.wait()
    c = {}
    for l in open(out):
        f = l.split()
        if len(f) >= 5 and re.fullmatch(r"[\d.]+", f[0]) and f[3].isdigit() and f[-1] != "total": c[f[-1]] = c.get(f[-1], 0) + int(f[3])
    # the client counts only the measured window; scale to the whole time under strace
    n = r["ok"] * (r["secs"] + a.warmup) / r["secs"] if r and r.get("ok") else 0
    return {"per_req": sum(c.values()) / n, "top": {k: round(v / n, 2) for k, v in sorted(c.items(), key=lambda x: -x[1])[:7]}, "requests": n} if n else None

def cpu_of(pids):
    s = 0
    for p in pids:
        try:
            for t in os.listdir(f"/proc/{p}/task"): s += int(open(f"/proc/{p}/task/{t}/schedstat").read().split()[0])
        except OSError: pass
    return s / 1e9

def med(v):
    v = [x for x in v if x is not None]
    return st.median(v) if v else None
def fmt(x, n=None):
    if x is None: return "-"
    return f"{x:.{n}f}" if n is not None else (f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}")

def table(rows, head):
    print("| " + " | ".join(head) + " |"); print("|" + "---|" * len(head))
    for r in rows: print("| " + " | ".join(r) + " |")

def summarise(path, subject=None):
    recs = [json.loads(l) for l in open(path)]
    meta = recs[0]
    print(f"## {path}\n\nmeta: {json.dumps({k: v for k, v in meta.items() if k != 'rec'})}\n")
    runs = [r for r in recs if r.get("rec") == "run" and r["res"] and "failed" not in r["res"]]
    peers = []
    for r in recs:
        if r.get("peer") and r["peer"] not in peers: peers.append(r["peer"])
    real = [p for p in peers if p not in ("direct", "floor") and p != subject]
    for test in TESTS:
        rr = [r for r in runs if r["test"] == test]
        if not rr: continue
        _, args, _, col, up, group = TESTS[test]
        bulk = "upload" in args or "download" in args
        norm = "gbps_core" if bulk else "rps_core"
        g = lambda p, k: [r["res"][k] for r in rr if r["peer"] == p]
        direct = med(g("direct", "p50")) or 0
        # the best peer is by the column least harmed by a busy machine: CPU-normalised throughput, or p50
        key = norm if up else "p50"
        best = {k: ((max if (k != "p50") else min)([(med(g(p, k)), p) for p in real if med(g(p, k)) and not (p in L4_ONLY and TESTS[test][0] != "tcp")], default=(None, ""))) for k in (key, col)}
        print(f"### {test}  (`{args}`)")
        rows = []
        for p in peers:
            if not g(p, "ok"):
                if any(r["peer"] == p and r["test"] == test and r["res"] is None for r in recs if r.get("rec") == "run"): rows.append([p, "not supported"] + ["-"] * 12)
                continue
            m = lambda k: med(g(p, k))
            v, bv = m(key), best[key][0]
            spread = [x for x in g(p, key) if x]
            sp_ = f"{fmt(min(spread))}..{fmt(max(spread))}" if spread else "-"
            ratio = f"{(v / bv if up else v / bv):.2f}" if v and bv else "-"
            errs = sum(g(p, "errors")) + sum(g(p, "non2xx"))
            rows.append([p, fmt(m("gbps"), 2) + " Gb/s" if bulk else fmt(m("rps")), fmt(m(norm), 2 if bulk else None), fmt(m("p50")), fmt(m("p90")), fmt(m("p99")), fmt(min(g(p, "p99"))), fmt(m("p50") - direct) if not bulk else "-",
                         fmt(m("cpu_gb") if bulk else m("cpu_100k"), 2), fmt(m("sw_req"), 2) if not bulk else "-", sp_, ratio, str(errs), str(len(g(p, "ok")))])
        table(rows, ["peer", "Gb/s" if bulk else "rps", "Gb/s per proxy core" if bulk else "rps per proxy core", "p50 us", "p90", "p99", "p99 best round", "+p50 vs direct", "CPU s/GB" if bulk else "CPU s/100k", "switches/req", f"spread of {key}", f"{key} / best peer ({best[key][1]})", "errors", "n"])
        print()
    mem = [r for r in recs if r.get("rec") == "mem"]
    if mem:
        print("### memory (MiB, both proxies; PSS) and start-up")
        rows = []
        for p in peers:
            m = [r for r in mem if r["peer"] == p]
            if not m or p == "direct": continue
            f = lambda k: fmt(med([r.get(k) for r in m]), 1)
            ff = lambda k, s: fmt(med([(r.get(k) or {}).get(s) for r in m]), 1)
            rows.append([p, f("idle_pss"), f("idle_rss"), ff("c1000_http", "pss"), ff("c1000_http", "per_conn_kb"), ff("c1000_tcp", "pss"), ff("c1000_tcp", "per_conn_kb"), f("svc1000_pss"), f("start_s10"), f("start_s1000"), fmt(med([(r.get("c1000_http") or {}).get("idle_cpu_pct") for r in m]), 2)])
        table(rows, ["peer", "idle PSS", "idle RSS", "1000 idle http conns", "KiB/conn", "1000 idle tcp conns", "KiB/conn", "1000 services", "start s (10)", "start s (1000)", "CPU % with 1000 idle conns"]); print()
    sz = [r for r in recs if r.get("rec") == "size" and r["res"] and "failed" not in r["res"]]
    if sz:
        print("### RPS per proxy core, 10 vs 1000 services (h1_c64)")
        rows = []
        for p in peers:
            v = {n: med([r["res"]["rps_core"] for r in sz if r["peer"] == p and r["services"] == n]) for n in sorted({r["services"] for r in sz})}
            ks = list(v)
            if p == "direct" or not any(v.values()): continue
            rows.append([p] + [fmt(v[k]) for k in ks] + [f"{v[ks[-1]] / v[ks[0]]:.3f}" if v[ks[0]] and v[ks[-1]] else "-"])
        table(rows, ["peer"] + [f"{k} services" for k in sorted({r["services"] for r in sz})] + ["ratio"]); print()

def compact(paths, subject=None):
    """one line per test, one column per peer: the headline number, then its ratio to the best real peer"""
    recs = [json.loads(l) for p in paths for l in open(p)]
    runs = [r for r in recs if r.get("rec") == "run" and r["res"] and "failed" not in r["res"]]
    peers = list(dict.fromkeys(r["peer"] for r in runs))
    real = [p for p in peers if p not in ("direct", "floor") and p != subject]
    cols = []
    for t, (_, args, _, col, up, group) in TESTS.items():
        bulk = "upload" in args or "download" in args
        if group == "rate" or t in ("h1_c1", "tcp_pp1"): cols += [(t, "p50", False, "p50 us"), (t, "p99", False, "p99 us"), (t, "cpu_100k", False, "CPU s/100k")]
        elif bulk: cols += [(t, "gbps_core", True, "Gb/s per proxy core"), (t, "cpu_gb", False, "CPU s/GB")]
        else: cols += [(t, "rps_core", True, "per proxy core"), (t, "rps", True, "raw per s")] + ([(t, "cpu_100k", False, "CPU s/100k")] if t in ("h1_c64", "grpc_4x32", "conn_tcp", "conn_http") else [])
    rows, ratios = [], []
    for t, key, up, label in cols:
        rr = [r for r in runs if r["test"] == t]
        if not rr: continue
        v = {p: med([r["res"][key] for r in rr if r["peer"] == p]) for p in peers}
        cand = [(v[p], p) for p in real if v[p] and not (p in L4_ONLY and TESTS[t][0] != "tcp")]
        if not cand: continue
        b = (max if up else min)(cand)
        rows.append([f"{t} {label}"] + [fmt(v[p]) if v[p] else "-" for p in peers] + [b[1]])
        ratios.append([f"{t} {label}"] + [f"{v[p] / b[0]:.2f}" if v[p] else "-" for p in peers] + [b[1]])
    print("#### medians"); table(rows, ["test"] + peers + ["best peer"]); print("\n#### ratio to the best real peer (rates: higher is better; latency and CPU: lower is better)"); table(ratios, ["test"] + peers + ["best peer"])

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--peers", default=DEFAULT_PEERS)
    ap.add_argument("--subject", action="append", default=[], help="NAME (adapters/NAME.sh) or NAME=/path/to/adapter.sh: the thing under test, run beside the peers")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--secs", type=float, default=3, help="measured seconds of a saturation run; fixed-rate runs take 5x")
    ap.add_argument("--warmup", type=float, default=0.5)
    ap.add_argument("--tests", default="", help="comma list or groups (h1,rate,h2,tcp,conn); default all")
    ap.add_argument("--profile", choices=("pin1", "free2"), default="pin1", help="pin1: 1 worker each, both proxies on core 0, load+backend on core 1; free2: 2 workers, unpinned")
    ap.add_argument("--phases", default="check,matrix,mem,size")
    ap.add_argument("--rt", type=int, default=1, help="1: fixed-rate and single-connection runs (low CPU) use SCHED_FIFO for proxies, backend and load, so that the tail is not the time slices of other jobs")
    ap.add_argument("--keep-awake", type=int, default=1, help="1: during latency runs a SCHED_IDLE spinner per core keeps the virtual cores from halting (a halted vCPU costs 30-60 us per wake-up)")
    ap.add_argument("--sizes", default="10,1000")
    ap.add_argument("--out", default="")
    ap.add_argument("--start-timeout", type=float, default=30)
    ap.add_argument("--summarise", help="only print the tables of an earlier raw.jsonl")
    ap.add_argument("--compact", nargs="+", help="only print two compact tables over one or more raw.jsonl")
    a = ap.parse_args()
    subj = dict((s.split("=", 1) if "=" in s else (s, None)) for s in a.subject)
    if a.compact: return compact(a.compact, next(iter(subj), None))
    if a.summarise: return summarise(a.summarise, next(iter(subj), None))
    a.threads, a.proxy_cpus, a.load_cpus = (1, "0", "1") if a.profile == "pin1" else (2, "", "")
    # a private network namespace: no port clash with other jobs, known TCP settings, nothing can leave
    if not os.environ.get("MB_IN_NS"):
        ns = f"mb{os.getpid()}"
        build(); certs()
        sp.check_call(["ip", "netns", "add", ns])
        try:
            sh(f"ip netns exec {ns} ip link set lo up; ip netns exec {ns} sysctl -w net.ipv4.tcp_congestion_control=cubic; ip netns exec {ns} sysctl -w net.ipv4.tcp_congestion_control=$(cat /proc/sys/net/ipv4/tcp_allowed_congestion_control | tr ' ' '\\n' | grep -m1 -E 'cubic|reno'); ip netns exec {ns} sysctl -w net.ipv4.tcp_wmem='4096 16384 4194304' net.ipv4.tcp_rmem='4096 131072 6291456'")
            inner = sp.Popen(["ip", "netns", "exec", ns, sys.executable, "-u", os.path.abspath(__file__)] + sys.argv[1:], env=dict(os.environ, MB_IN_NS="1"))
            signal.signal(signal.SIGTERM, lambda *_: inner.terminate())
            signal.signal(signal.SIGINT, lambda *_: None)
            rc = inner.wait()
        finally: sh(f"ip netns del {ns}")
        sys.exit(rc)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tests = [t for t in TESTS if not a.tests or t in a.tests.split(",") or TESTS[t][5] in a.tests.split(",")]
    names = [(p, None) for p in a.peers.split(",") if p] + list(subj.items())
    out = a.out or os.path.join(ROOT, "results", time.strftime("%Y%m%d-%H%M%S") + "-" + a.profile + ".jsonl")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    f = open(out, "a")
    def rec(**k): f.write(json.dumps(k) + "\n"); f.flush()
    be = sp.Popen((["taskset", "-c", a.load_cpus] if a.load_cpus else []) + [MB, "backend", "--http", BE["http"], "--h2", BE["h2"], "--tcp", BE["tcp"]], stdout=sp.DEVNULL)
    a.be_pid = be.pid
    peers = []
    try:
        wait_port(9001); wait_port(9003)
        peers = [Peer(n, a, script=s) for n, s in names]
        rec(rec="meta", time=time.strftime("%F %T"), profile=a.profile, secs=a.secs, rounds=a.rounds, kernel=os.uname().release, **machine(), cc=open("/proc/sys/net/ipv4/tcp_congestion_control").read().strip(),
            versions={p.name: p.call("version") for p in peers})
        phases = a.phases.split(",")
        if "mem" in phases or "size" in phases:
            sizes = [int(x) for x in a.sizes.split(",")]
            for rnd in range(max(1, min(a.rounds, 3))):
                for n, s in names:
                    if n == "direct": continue
                    m = {"rec": "mem", "peer": n, "round": rnd}
                    live = []
                    for size in sizes:
                        if size != sizes[0] and n == "floor": continue
                        p = Peer(n, a, services=size, tag=f"-s{size}", script=s); Peer.seq -= 1
                        try:
                            p.env["MB_PORT"] = str(20000 + 20 * len(live)); p.start(); live.append(p); time.sleep(0.7)
                            r, ps = p.mem()
                            m[f"start_s{size}"], m[f"prepare_s{size}"] = p.t_start, p.t_prepare
                            if size == sizes[0]: m["idle_rss"], m["idle_pss"] = r, ps
                            else: m[f"svc{size}_rss"], m[f"svc{size}_pss"] = r, ps
                        except Exception as e: print("!!", n, size, e, file=sys.stderr)
                    try:
                        if "size" in phases:
                            for rep in range(2):
                                for p in live: rec(rec="size", peer=n, round=rnd, services=p.services, res=client(a, p, "h1_c64"))
                        if "mem" in phases and live:
                            live[0].stop(); live[0].start(); time.sleep(0.5)
                            m["c1000_http"] = idle_mem(a, live[0], "http")
                            live[0].stop(); live[0].start(); time.sleep(0.5)
                            m["c1000_tcp"] = idle_mem(a, live[0], "tcp")
                            rec(**m)
                        print(f"[mem/size {rnd}] {n} idle {m.get('idle_pss', 0):.1f} MiB, 1000 svc {m.get('svc1000_pss') or 0:.1f}, 1000 http conns {((m.get('c1000_http') or {}).get('pss') or 0):.1f}, tcp {((m.get('c1000_tcp') or {}).get('pss') or 0):.1f}", flush=True)
                    except Exception as e: print("!!", n, repr(e), file=sys.stderr)
                    finally:
                        for p in live: p.stop()
        if {"check", "matrix", "syscalls"} & set(phases):
            for p in peers: p.start()
        if "check" in phases:
            for p in peers: c = check(p); rec(rec="check", peer=p.name, text=c); print(f"[check] {p.name} ({p.call('version')}): {c}", flush=True)
        if "syscalls" in phases:
            for t in ("h1_c1", "h1_c64", "tcp_pp1"):
                for p in peers:
                    x = syscalls(a, p, t)
                    if x: rec(rec="syscalls", peer=p.name, test=t, res=x); print(f"[syscalls] {t} {p.name}: {x['per_req']:.2f} per request {x['top']}", flush=True)
        if "matrix" in phases:
            for rnd in range(a.rounds):
                for t in tests:
                    line = []
                    rt = bool(a.rt) and TESTS[t][3] == "p50"
                    for p in peers:
                        r = client(a, p, t, rt=rt)
                        rec(rec="run", peer=p.name, test=t, round=rnd, res=r)
                        if r and "failed" not in r:
                            k = TESTS[t][3]; line.append(f"{p.name}={fmt(r[k])}" + (f"({fmt(r['gbps_core'], 1)}/core)" if k == "gbps" else f"({fmt(r['rps_core'])}/core)" if k == "rps" else "") + (f" ERR{r['errors']}/{r['non2xx']}" if r["errors"] or r["non2xx"] else ""))
                        else: line.append(f"{p.name}=FAILED" if r else f"{p.name}=not supported")
                    print(f"[r{rnd}] {t} {TESTS[t][3]}: " + "  ".join(line), flush=True)
    finally:
        for p in peers: p.stop()
        be.terminate(); be.wait()
    f.close()
    print(); summarise(out, next(iter(subj), None)); print(); compact([out], next(iter(subj), None))

if __name__ == "__main__": main()
