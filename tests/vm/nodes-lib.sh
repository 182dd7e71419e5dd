# What the cases of tests/vm/cases use, on both machines: brokers, samples, a way to have the other machine do
# something, what went over the wire, verdicts. Node 1 is the home, node 2 reads and drives.
BUILD=${BUILD:-build}
dir=/dev/shm/featured
asked=/dev/shm/asked # how many commands the home has been sent
mkdir -p $dir

say() { echo "node$NODE: $*"; }
exec {silence}<> <(:)
pause() { read -rt "$1" -u $silence; } # SECONDS; without a process, which costs under emulation
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
await() { # SECONDS COMMAND...: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return
    pause 0.1
  done
  return 0
}
not() { ! "$@"; }

# ---- the home does what the reader asks for ----
serve() {
  local number=0
  while :; do
    until [ -e /results/do.$number ]; do pause 0.05; done
    (eval "$(cat /results/do.$number)") > /results/said.$number 2>&1
    echo $? > /results/did.$number.part
    mv /results/did.$number.part /results/did.$number
    number=$((number + 1))
  done
}
tell_home() { # COMMAND: without waiting
  local number
  number=$(cat $asked 2> /dev/null || echo 0) # a file: callers are subshells, too
  echo $((number + 1)) > $asked
  echo "$1" > /results/do.part && mv /results/do.part "/results/do.$number"
  told=$number
}
on_home() { # COMMAND: runs it there; its output and status
  local told
  tell_home "$1"
  until [ -e "/results/did.$told" ]; do pause 0.05; done
  cat "/results/said.$told"
  return "$(cat "/results/did.$told")"
}

# ---- brokers ----
write_config() { # [LINE OF [peers]]... [-- LINE OF [rdma]...]
  local peers='' rdma='' into=peers line
  for line in "$@"; do
    case $line in
      --) into=rdma ;;
      *) printf -v $into '%s%s\n' "${!into}" "$line" ;;
    esac
  done
  [[ $peers == *transport\ =* ]] || peers+=$'transport = auto\n'
  (umask 077; [ -e $dir/secret ] || echo "a secret of this cluster, long enough" > $dir/secret)
  cat > $dir/conf << END
[node]
name = n$NODE
[local]
socket = $dir/sock
[memory]
max_resident_bytes = 800MiB
prefault = off
[store run]
max_resident_bytes = 300MiB
landing_bytes = 300MiB
policy = on-ack
[peers]
listen = 0.0.0.0:7400
cluster_secret_file = $dir/secret
peer_timeout = 12s
reconnect_max = 1s
${peers}[rdma]
registration_bytes = 64MiB
stall_timeout = 8s
${rdma}[peer n$((3 - NODE))]
address = 10.77.0.$((3 - NODE)):7400
END
}
start_broker() { # [PROGRAM THAT STARTS IT...]
  rm -f $dir/big.? # no sample outlives a broker
  "$@" $BUILD/featured --config $dir/conf > $dir/log 2>&1 &
  echo $! > $dir/pid
  until ctl status > /dev/null 2>&1; do
    kill -0 "$(cat $dir/pid)" 2> /dev/null || return 1
    pause 0.1
  done
  return 0 # and not what the last pause gave
}
stop_broker() { # [SIGNAL]
  local pid
  pid=$(cat $dir/pid)
  kill -"${1:-TERM}" "$pid" 2> /dev/null
  await 60 not kill -0 "$pid"
}
ctl() { $BUILD/featurectl --socket $dir/sock "$@"; }
field() { [[ $2 =~ \"$1\":\ *\"?([^,\"}]*) ]] && echo "${BASH_REMATCH[1]}"; } # KEY JSON: its first value
peer_line() { ctl nodes --json | grep "\"node\": *\"n$((3 - NODE))\""; }
peer_is_over() { # TRANSPORT
  local line
  line=$(peer_line) && [ "$(field state "$line") $(field transport "$line")" = "up $1" ]
}
# No lease, no reservation, no bytes of a copy, nothing on its way.
is_idle() {
  local status stores
  status=$(ctl status --json) && stores=$(ctl stores --json) || return
  [ "$(field leases "$status") $(field release_pending "$status")" = "0 0" ] \
    && [ "$(field reservations "$stores") $(field planned "$stores") $(field landing_used_bytes "$stores")" = "0 0 0" ]
}

# The home as a case finds it, whatever the case before did to it.
home_is_ready() {
  rail_up 0 && rail_up 1
  kill -0 "$(cat $dir/pid)" 2> /dev/null || start_broker
}
# rdma link del waits for every context on the device: whoever does not let go makes it hang, and with it every later
# call; then this machine is of no more use.
delete_rail() { # RAIL
  local start
  start=$(now_ms)
  rdma link del "rxe$1" &
  await 30 not kill -0 $! || return
  wait $! && echo "rdma link del took $(($(now_ms) - start)) ms"
}
# Slow rails leave time to strike in the middle of a read, and the processors of both machines free to do it.
slow_rails() { # [MBIT PER SECOND]
  local i
  for i in 0 1; do tc qdisc replace dev eth$i root tbf rate "${1:-32}mbit" burst 64kb limit 16mb || return; done
}
fast_rails() { tc qdisc del dev eth0 root && tc qdisc del dev eth1 root; }

# ---- samples: files of random bytes that tests/vm/run made ----
samples=$DIRECTORY/$BUILD/tests/vm-samples
big_bytes=$((32 << 20)) # of the sample that faults strike in the middle of
file_of() { echo "$samples/$1.$2"; } # BYTES WHICH (0, 1)
put_file() { ctl put "$1" --store run --id "$2" | tail -n 1; } # FILE ID: prints its ref
big() { # WHICH: prints its ref
  [ -e $dir/big.$1 ] || put_file "$(file_of $big_bytes $1)" big-$1 > $dir/big.$1 || return
  cat $dir/big.$1
}

# ---- what went over the wire ----
count_packets() { # received by this machine: $packets, and of each rail ${rail_packets[I]}
  local i
  packets=0
  for i in 0 1; do
    rail_packets[i]=0
    read -r "rail_packets[i]" 2> /dev/null < /sys/class/infiniband/rxe$i/ports/1/hw_counters/rcvd_pkts
    packets=$((packets + rail_packets[i]))
  done
}
tcp_segments() { awk '/^Tcp:/ && $2 ~ /[0-9]/ {print $11 + $12}' /proc/net/snmp; }

# ---- verdicts ----
# check WORDS COMMAND...: what a case wants to be true; the first that is not is why it fails.
check() {
  local what=$1
  shift
  "$@" && return
  failure=$what
  return 1
}
# For whoever looks into a failure: the whole log, and what the kernel knows.
keep_state() { # NAME
  cp $dir/log "/results/$1.log"
  {
    ctl nodes --wide
    rdma link
    rdma resource show qp
    tc -s qdisc show
    ip -s neigh
    grep -H . /sys/class/infiniband/*/ports/1/gids/{0,1,2,3}
    grep -E 'Udp:|Ip:' /proc/net/snmp
    grep -H . /sys/class/infiniband/*/ports/1/hw_counters/* | sed 's,^.*infiniband/,,' | grep -v ':0$'
    dmesg | tail -n 30
  } > "/results/$1.state" 2>&1
}
figure() { figures+="${figures:+, }$*"; }
# The machines as a case finds them, whatever the case before did to them.
make_ready() {
  [ -z "${getter:-}" ] || await 90 not kill -0 "$getter" || kill -KILL "$getter"
  getter='' figures='' failure='' too_late=''
  [ -n "${home_is_off:-}" ] || on_home home_is_ready
  rail_up 0 && rail_up 1
}
# run_case FUNCTION WORDS: PASS or FAIL, the words, and the figures that it gave. A fault that came too late, because the
# machines were slow, says nothing: once more.
run_case() {
  local start=$SECONDS try
  [ -z "${VM_CASES:-}" ] || [[ " $VM_CASES " == *" $1 "* ]] || return 0
  for try in 1 2 3; do
    echo "---- $1" >> /results/case.log
    make_ready
    if "$1" >> /results/case.log 2>&1; then
      echo "PASS $1: $2${figures:+ ($figures)} [$((SECONDS - start)) s]" | tee -a /results/cases
      return
    fi
    [ -n "$too_late" ] || break
  done
  echo "FAIL $1: $2: ${failure:-ended early}${figures:+ ($figures)} [$((SECONDS - start)) s, try $try]" | tee -a /results/cases
  {
    tail -n 15 /results/case.log | sed 's/^/  case| /'
    tail -n 12 $dir/log | sed 's/^/  reader| /'
    keep_state "$1.reader"
    [ -n "${home_is_off:-}" ] || on_home "keep_state $1.home; tail -n 12 $dir/log" | sed 's/^/  home| /'
  } | tee -a /results/cases
  [ -z "${broken:-}" ] || exit 1
}
