#!/usr/bin/env bash
# lab.sh - a lab of real systemd hosts on one machine (Debian 12, root, no systemd as PID 1 needed).
#
# Each host is a systemd-nspawn container: PID 1 = systemd, its own PID/mount/UTS/IPC/cgroup/network
# namespaces, journald, sshd; root = overlayfs on one cached base rootfs.  All hosts hang on a bridge
# in a private "switch" network namespace, so nothing touches the machine's own network.
#
#   lab.sh base                        make (or reuse) the base rootfs               [~35 s the first time]
#   lab.sh up N | up NAME...           start h1..hN, or the hosts named, in parallel [~3 s for 5]
#   lab.sh down                        stop everything, remove namespaces, mounts, cgroups
#   lab.sh status | inventory          table of hosts | Ansible inventory (INI)
#   lab.sh exec H CMD...               run CMD in H (nsenter)         lab.sh ssh H [CMD...]
#   lab.sh op CMD...                   run CMD "on the operator's machine" (the switch namespace): ansible, curl, browser
#   lab.sh push H SRC DST              copy a file into H
#   lab.sh kill H|stop H|start H       power loss: unplug, SIGKILL everything | orderly poweroff | boot again (`systemctl reboot` works too)
#   lab.sh powercut H                  with LAB_DISK: kill AND lose every write that was not flushed; then start H
#   lab.sh pause H|resume H            freeze / thaw every process of H (cgroup.freeze)
#   lab.sh partition A B [oneway]      drop A->B and B->A (or only A->B);  B may be 'all'
#   lab.sh loss A B PCT                drop PCT % of the packets A->B and B->A
#   lab.sh bw H RATE|off               limit H's traffic, both ways (tbf), e.g. 10mbit
#   lab.sh delay H MS [JITTER]|off     delay what H sends and receives (needs nfqdelay.py)
#   lab.sh link H up|down              unplug / plug the cable
#   lab.sh heal                        undo partition, loss, bw, delay, link down, pause everywhere
#
# Environment: LAB_DIR (state, default ${TMPDIR:-/tmp}/mesh-lab/run), LAB_CACHE (base rootfs, default ${TMPDIR:-/tmp}/mesh-lab/cache),
# LAB_ID (several labs side by side), LAB_BIND ("/src:/dst ..." read-only binds into every host),
# LAB_DISK (size, e.g. 256M: own ext4 disk per host), LAB_DISK_AT (where it is mounted in the host, default /data),
# LAB_MEM (bytes or e.g. 512M: memory limit per host where the memory controller is cgroup v1).
set -euo pipefail
LAB_ID=${LAB_ID:-lab}; HERE=$(cd "$(dirname "$0")" && pwd)
LAB_DIR=${LAB_DIR:-${TMPDIR:-/tmp}/mesh-lab/run}/$LAB_ID; CACHE=${LAB_CACHE:-${TMPDIR:-/tmp}/mesh-lab/cache}
SW=$LAB_ID-sw; NET=10.77.0; OPIP=$NET.254; KEY=$CACHE/id_ed25519
PKGS=systemd,systemd-sysv,dbus,libpam-systemd,libnss-resolve,systemd-resolved,udev,iproute2,iputils-ping,nftables,openssh-server
PKGS+=,python3,python3-apt,curl,ca-certificates,procps,socat,sudo,libfaketime,strace,dnsutils,less
CG2=$(findmnt -rn -t cgroup2 -o TARGET | head -1); CG=$CG2/$LAB_ID
die() { echo "lab: $*" >&2; exit 1; }
dir() { [ -d "$LAB_DIR/$1" ] || die "no host $1"; echo "$LAB_DIR/$1"; }
ip_of() { cat "$(dir "$1")/ip"; }
hosts() { [ -d "$LAB_DIR" ] && find "$LAB_DIR" -mindepth 2 -maxdepth 2 -name ip -printf '%h\n' | xargs -rn1 basename | sort -V || true; }
leader() { local p; p=$(cat "$(dir "$1")/pid" 2>/dev/null) && pgrep -P "$p" | head -1; }   # systemd of host $1, seen from here
alive() { [ -n "$(leader "$1" 2>/dev/null || true)" ]; }
enter() { local h=$1 l; shift; l=$(leader "$h") || die "$h is not running"; nsenter -t "$l" -a -- env -i TERM="${TERM:-dumb}" \
  HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }
sw() { ip netns exec "$SW" "$@"; }

base() {   # one debootstrapped tree, kept in $CACHE/base; the apt sources are the outer machine's
  local want c need=0 src=/etc/apt/sources.list.d/debian.sources; want=$( (echo "$PKGS"; declare -f base) | sha256sum | cut -c1-12)
  [ "$(cat "$CACHE/base.id" 2>/dev/null)" = "$want" ] && return 0
  for c in mmdebstrap systemd-nspawn nft iptables ssh ip; do command -v $c >/dev/null || need=1; done
  if [ $need = 1 ]; then apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 \
    mmdebstrap systemd-container nftables iptables iproute2 openssh-client e2fsprogs >/dev/null; fi
  mkdir -p "$CACHE"; rm -rf "$CACHE/base" "$CACHE/base.id"; [ -f $src ] || src=/etc/apt/sources.list
  mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="$PKGS" --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='force-unsafe-io' bookworm "$CACHE/base" "$src"
  local b=$CACHE/base; rm -rf "$b"/etc/apt/sources.list* "$b"/var/lib/apt/lists/* ; mkdir -p "$b/etc/apt/sources.list.d"
  : >"$b/etc/machine-id"; rm -f "$b/etc/hostname" "$KEY" "$KEY.pub"
  ssh-keygen -q -t ed25519 -N '' -C lab -f "$KEY"; install -Dm600 "$KEY.pub" "$b/root/.ssh/authorized_keys"
  printf 'UseDNS no\nPermitRootLogin prohibit-password\nMaxStartups 100\n' >"$b/etc/ssh/sshd_config.d/lab.conf"
  awk '{print "'"$NET"'.*,h* " $1 " " $2}' "$b/etc/ssh/ssh_host_ed25519_key.pub" >"$CACHE/known_hosts"
  # a container has no consoles, no kernel modules and no hugepages to mount; unit files are masked to boot faster
  ln -sf /lib/systemd/system/multi-user.target "$b/etc/systemd/system/default.target"
  for u in console-getty.service dev-hugepages.mount apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer
  do ln -sf /dev/null "$b/etc/systemd/system/$u"; done
  install -d "$b/etc/systemd/journald.conf.d" "$b/var/log/journal"; printf '[Journal]\nStorage=persistent\nRateLimitBurst=0\nSystemMaxUse=64M\n' >"$b/etc/systemd/journald.conf.d/lab.conf"
  echo "$want" >"$CACHE/base.id"
}
net_up() {   # the switch: a namespace with a bridge; its own address is the operator's machine
  ip netns list | grep -qw "^$SW" && return 0
  ip netns add "$SW"; sw ip link set lo up; sw ip link add br0 type bridge forward_delay 0; sw ip addr add $OPIP/24 dev br0; sw ip link set br0 up
  sw nft -f - <<N
table bridge lab {
  set cut { type ipv4_addr . ipv4_addr; }
  chain lossy { }
  chain c_fwd { type filter hook forward priority 0; ip saddr . ip daddr @cut counter drop
    jump lossy
  }
  chain c_in { type filter hook input priority 0; ip saddr . ip daddr @cut counter drop
    jump lossy
  }
  chain c_out { type filter hook output priority 0; ip saddr . ip daddr @cut counter drop
    jump lossy
  }
}
N
}
mk() {   # make host $1 with address number $2: overlay, veth, identity
  local h=$1 d=$LAB_DIR/$1 n=$2; mkdir -p "$d"/{up,work,root,data}; echo "$NET.$n" >"$d/ip"; cat /proc/sys/kernel/random/uuid >"$d/uuid"
  ip netns add "$LAB_ID-$h"; ip -n "$SW" link add "v$n" mtu 1500 type veth peer name eth0 netns "$LAB_ID-$h"
  ip -n "$SW" link set "v$n" master br0 up; echo "v$n" >"$d/veth"
  ip -n "$LAB_ID-$h" link set lo up; ip -n "$LAB_ID-$h" addr add "$NET.$n/24" dev eth0; ip -n "$LAB_ID-$h" link set eth0 up
  ip -n "$LAB_ID-$h" route add default via $OPIP
  mkdir -p "$d/up/etc"; echo "$h" >"$d/up/etc/hostname"; cp "$LAB_DIR/hosts" "$d/up/etc/hosts"
  if [ -n "${LAB_DISK:-}" ]; then truncate -s "$LAB_DISK" "$d/disk.img"; mkfs.ext4 -q "$d/disk.img"; echo "${LAB_DISK_AT:-/data}" >"$d/disk_at"; fi
}
start() {   # boot host $1 and wait until systemd has finished starting
  local h=$1 d b args=(); d=$(dir "$h"); alive "$h" && return 0
  rm -f "$d/state" "$d/pid"; sw ip link set "$(cat "$d/veth")" up; mountpoint -q "$d/root" || mount -t overlay "$h" -o "lowerdir=$CACHE/base,upperdir=$d/up,workdir=$d/work" "$d/root"
  for b in ${LAB_BIND:-}; do args+=("--bind-ro=$b"); done
  if [ -f "$d/disk.img" ]; then mountpoint -q "$d/data" || mount -o loop "$d/disk.img" "$d/data"; args+=("--bind=$d/data:$(cat "$d/disk_at")"); fi
  mkdir -p "$CG/$h"; [ -d /sys/fs/cgroup/memory ] && mkdir -p "/sys/fs/cgroup/memory/$LAB_ID/$h"
  ( echo $BASHPID >"$CG/$h/cgroup.procs"   # own cgroup: nspawn makes payload/ below it, unified (v2) inside the host
    if [ -n "${LAB_MEM:-}" ] && [ -d /sys/fs/cgroup/memory ]; then   # v1 machine: limit from the outside
      echo "$LAB_MEM" >"/sys/fs/cgroup/memory/$LAB_ID/$h/memory.limit_in_bytes"; echo $BASHPID >"/sys/fs/cgroup/memory/$LAB_ID/$h/cgroup.procs"; fi
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network; trap '' HUP; set +e
    while :; do   # nspawn ends with 133 when the host asked for a reboot
      setsid systemd-nspawn --quiet -D "$d/root" --boot --register=no --keep-unit --machine="$h" --uuid="$(cat "$d/uuid")" \
        --network-namespace-path="/run/netns/$LAB_ID-$h" --capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON,CAP_IPC_LOCK \
        --system-call-filter='bpf perf_event_open' --resolv-conf=off --timezone=off --link-journal=no --console=passive "${args[@]}" &
      echo $! >"$d/pid"; wait $!; [ $? = 133 ] || break; done ) </dev/null >>"$d/console.log" 2>&1 &
  local i; for i in $(seq 100); do alive "$h" && enter "$h" systemctl is-system-running --wait >"$d/state" 2>/dev/null || true
    grep -qE 'running|degraded' "$d/state" 2>/dev/null && return 0; [ "$i" -lt 20 ] || kill -0 "$(cat "$d/pid")" 2>/dev/null || break; sleep 0.1; done
  tail -5 "$d/console.log" >&2; die "$h did not boot"
}
halt() {   # $1 host, $2 signal for its PID 1 (KILL = power loss, RTMIN+4 = orderly poweroff)
  local p l; p=$(cat "$(dir "$1")/pid"); l=$(leader "$1") || return 0; echo 0 >"$CG/$1/cgroup.freeze"
  [ "$2" != KILL ] || sw ip link set "$(cat "$LAB_DIR/$1/veth")" down   # first the cable: a machine without power sends no FIN or RST
  kill -s "$2" "$l"; timeout 90 tail -s 0.05 --pid="$p" -f /dev/null || kill -9 "$l" "$p"
}
up() {
  base; net_up; mkdir -p "$LAB_DIR"; local names=("$@") n i h
  [[ ${1:-} =~ ^[0-9]+$ ]] && mapfile -t names < <(seq -f 'h%g' 1 "$1")
  n=$(hosts | wc -l); [ -f "$LAB_DIR/hosts" ] || printf '127.0.0.1 localhost\n%s operator\n' $OPIP >"$LAB_DIR/hosts"
  i=$n; for h in "${names[@]}"; do [ -d "$LAB_DIR/$h" ] || { i=$((i+1)); echo "$NET.$i $h" >>"$LAB_DIR/hosts"; }; done
  i=$n; for h in "${names[@]}"; do [ -d "$LAB_DIR/$h" ] || { i=$((i+1)); mk "$h" $i; }; done
  for h in $(hosts); do cp "$LAB_DIR/hosts" "$LAB_DIR/$h/up/etc/hosts"; done
  local pids=() p bad=0; for h in "${names[@]}"; do start "$h" & pids+=($!); done
  for p in "${pids[@]}"; do wait "$p" || bad=1; done; return $bad
}
down() {
  local h; for h in $(hosts); do { halt "$h" KILL || true; umount -R "$LAB_DIR/$h/root" || true; umount "$LAB_DIR/$h/data" || true
    ip netns del "$LAB_ID-$h" || true; } 2>/dev/null & done; wait
  nfq_off; ip netns del "$SW" 2>/dev/null || true; rm -rf "$LAB_DIR"
  for h in "$CG" /sys/fs/cgroup/{memory,systemd}/"$LAB_ID"; do [ -d "$h" ] && find "$h" -depth -type d -exec rmdir {} + 2>/dev/null; done; true
}
nfq_off() { local f=$LAB_DIR/nfq; [ -d "$f" ] && for p in "$f"/*; do [ -f "$p" ] && kill "$(cat "$p")" 2>/dev/null || true; done; rm -rf "$f"
  if ip netns list | grep -qw "^$SW"; then sw iptables -F FORWARD 2>/dev/null || true; fi; }
delay() {   # a userspace netem: iptables NFQUEUE on the bridge + a small program that holds the packets
  local h=$1 a n; a=$(ip_of "$h"); n=${a##*.}; sw iptables -S FORWARD 2>/dev/null | grep -E -- "-[sd] $a/32" | sed 's/^-A/-D/' | while read -r r; do sw iptables $r; done || true
  [ ! -f "$LAB_DIR/nfq/$n" ] || kill "$(cat "$LAB_DIR/nfq/$n")" 2>/dev/null || true; rm -f "$LAB_DIR/nfq/$n"; if [ "$2" = off ]; then return 0; fi
  mkdir -p "$LAB_DIR/nfq"; sw sysctl -qw net.bridge.bridge-nf-call-iptables=1
  ip netns exec "$SW" "$HERE/nfqdelay.py" "$n" "$2" "${3:-0}" >"$LAB_DIR/nfq.log" 2>&1 & echo $! >"$LAB_DIR/nfq/$n"; sleep 0.3
  sw iptables -A FORWARD -s "$a" -j NFQUEUE --queue-num "$n"; sw iptables -A FORWARD -d "$a" -j NFQUEUE --queue-num "$n"
}
bw() { local v; v=$(cat "$(dir "$1")/veth"); ip netns exec "$SW" tc qdisc del dev "$v" root 2>/dev/null; ip netns exec "$LAB_ID-$1" tc qdisc del dev eth0 root 2>/dev/null
  [ "$2" = off ] || { sw tc qdisc add dev "$v" root tbf rate "$2" burst 32k latency 50ms; ip netns exec "$LAB_ID-$1" tc qdisc add dev eth0 root tbf rate "$2" burst 32k latency 50ms; }; }
sever() {   # $1 host, $2 host|all|operator, $3 oneway
  local a b o; a=$(ip_of "$1"); [ "$2" = all ] && { for o in $(hosts); do [ "$o" = "$1" ] || sever "$1" "$o" "${3:-}"; done; return; }
  b=$OPIP; [ "$2" = operator ] || b=$(ip_of "$2"); sw nft add element bridge lab cut "{ $a . $b }"; [ "${3:-}" = oneway ] || sw nft add element bridge lab cut "{ $b . $a }"; }
loss() { local a b; a=$(ip_of "$1"); b=$(ip_of "$2"); sw nft add rule bridge lab lossy ip saddr "$a" ip daddr "$b" numgen random mod 100 \< "$3" drop
  sw nft add rule bridge lab lossy ip saddr "$b" ip daddr "$a" numgen random mod 100 \< "$3" drop; }
powercut() {   # the image file holds what the filesystem had sent to the disk; copy it BEFORE umount flushes the rest
  local d; d=$(dir "$1"); [ -f "$d/disk.img" ] || die "powercut needs LAB_DISK"; halt "$1" KILL
  cp --sparse=always "$d/disk.img" "$d/disk.cut"; umount -R "$d/root"; umount "$d/data"; mv "$d/disk.cut" "$d/disk.img"; }
heal() { local h; sw nft flush set bridge lab cut; sw nft flush chain bridge lab lossy; nfq_off
  for h in $(hosts); do bw "$h" off || true; sw ip link set "$(cat "$LAB_DIR/$h/veth")" up; echo 0 >"$CG/$h/cgroup.freeze" || true; done; }
inventory() { local h; echo "[all]"; for h in $(hosts); do echo "$h ansible_host=$(ip_of "$h")"; done
  printf '[all:vars]\nansible_user=root\nansible_python_interpreter=/usr/bin/python3\nansible_ssh_private_key_file=%s\nansible_ssh_common_args=-o UserKnownHostsFile=%s\n' "$KEY" "$CACHE/known_hosts"; }

c=${1:-help}; shift || true
case $c in
  base) base;; up) up "$@";; down) down;; inventory) inventory;; heal) heal;;
  status) for h in $(hosts); do printf '%-10s %-14s %s\n' "$h" "$(ip_of "$h")" "$(alive "$h" && echo "pid $(leader "$h") $(enter "$h" systemctl is-system-running || true)" || echo off)"; done;;
  exec) h=$1; shift; enter "$h" "$@";;
  ssh) h=$1; shift; sw ssh -q -i "$KEY" -o "UserKnownHostsFile=$CACHE/known_hosts" "root@$(ip_of "$h")" "$@";;
  op) sw "$@";;
  push) enter "$1" sh -c 'cat >"$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"' sh "$3" "$(stat -c %a "$2")" <"$2";;
  kill) halt "$1" KILL;; stop) halt "$1" RTMIN+4;; start) start "$1";; powercut) powercut "$1";;
  pause) echo 1 >"$CG/$1/cgroup.freeze";; resume) echo 0 >"$CG/$1/cgroup.freeze";;
  partition) sever "$@";; loss) loss "$@";; bw) bw "$@" || true;; delay) delay "$@";; link) sw ip link set "$(cat "$(dir "$1")/veth")" "$2";;
  *) sed -n '2,35p' "$0";;
esac
