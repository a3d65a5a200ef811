"""Waits until a pair of our agents has its certificates and carries calls. Arguments: certificates of
the callee's agent, admin ports of caller and callee, ports for HTTP and TCP, then Host names."""
import json, socket, sys, time, urllib.request

callee_leaves, caller_admin, callee_admin, http, tcp, *hosts = sys.argv[1:]

def leaves(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        return len(json.load(answer)["leaves"])

def carries(host):
    request = urllib.request.Request(f"http://127.0.0.1:{http}/", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=5) as answer: return answer.status == 200

def missing():
    """what is not there yet, or None"""
    try:
        if leaves(caller_admin) < 2: return "the caller's certificates"
        if leaves(callee_admin) < int(callee_leaves): return "the callee's certificates"
        for host in hosts:
            if not carries(host): return f"calls to {host}"
        socket.create_connection(("127.0.0.1", int(tcp)), 5).close()
    except (OSError, ValueError, KeyError) as why: return f"an answer ({why})"
    return None

end, why = time.time() + 120, "?"
while time.time() < end:
    why = missing()
    if why is None: sys.exit(0)
    time.sleep(0.1)
sys.exit(f"not ready within 120 s: no {why}")
