# What tests/vm/nodes uses on both machines: brokers, samples, a way to have the other machine do something, verdicts.
BUILD=${BUILD:-build}
dir=/dev/shm/featured
mkdir -p $dir

say() { echo "node$NODE: $*"; }
await() { # SECONDS COMMAND...: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
# ---- the home does what the reader asks for ----
serve() {
  local number=0
  while :; do
    until [ -e /results/do.$number ]; do sleep 0.1; done
    (eval "$(cat /results/do.$number)") > /results/said.$number 2>&1
    echo $? > /results/did.$number.part
    mv /results/did.$number.part /results/did.$number
    number=$((number + 1))
  done
}
tell_home() { # COMMAND: without waiting
  local number
  number=$(cat $dir/asked 2> /dev/null || echo 0)
  echo $((number + 1)) > $dir/asked
  echo "$1" > /results/do.part && mv /results/do.part /results/do.$number
}
on_home() { # COMMAND: runs it there; its output and status
  local number
  number=$(cat $dir/asked 2> /dev/null || echo 0) # a file: callers are subshells, too
  echo $((number + 1)) > $dir/asked
  echo "$1" > /results/do.part && mv /results/do.part /results/do.$number
  until [ -e /results/did.$number ]; do sleep 0.1; done
  cat /results/said.$number
  return "$(cat /results/did.$number)"
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
  (umask 077; [ -e $dir/secret ] || echo "a secret of this cluster, long enough" > $dir/secret)
  cat > $dir/conf << END
[node]
name = n$NODE
[local]
socket = $dir/sock
[memory]
max_resident_bytes = 400MiB
prefault = off
[store run]
max_resident_bytes = 320MiB
landing_bytes = 320MiB
policy = retain
[peers]
listen = 0.0.0.0:7400
cluster_secret_file = $dir/secret
peer_timeout = 30s
${peers}[rdma]
registration_bytes = 64MiB
stall_timeout = 20s
${rdma}[peer n$((3 - NODE))]
address = 10.77.0.$((3 - NODE)):7400
END
}
start_broker() {
  $BUILD/featured --config $dir/conf > $dir/log 2>&1 &
  echo $! > $dir/pid
  await 60 $BUILD/featurectl --socket $dir/sock status
}
stop_broker() { # [SIGNAL]
  kill -"${1:-TERM}" "$(cat $dir/pid)" 2> /dev/null
  await 60 sh -c "! kill -0 $(cat $dir/pid)"
}
ctl() { $BUILD/featurectl --socket $dir/sock "$@"; }
peer_is_up() { ctl nodes --json | grep "\"node\": *\"n$((3 - NODE))\"" | grep -q '"state": *"up"'; }
peer_over() { ctl nodes --json | sed -nE 's/.*"transport": *"([^"]*)".*/\1/p'; }
# ---- samples ----
make_file() { # BYTES FILE: a safetensors file of one tensor of random bytes
  local header="{\"t\":{\"dtype\":\"U8\",\"shape\":[$1],\"data_offsets\":[0,$1]}}"
  while [ $((${#header} % 8)) != 0 ]; do header+=' '; done
  { printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0$header"; head -c "$1" /dev/urandom; } > "$2"
}
put() { # BYTES ID: prints its ref; the sample put before makes room
  [ ! -e $dir/last ] || ctl abort "$(cat $dir/last)" > /dev/null 2>&1
  make_file "$1" $dir/put.safetensors
  ctl put $dir/put.safetensors --store run --id "$2" > $dir/put.out || return 1
  tail -n 1 $dir/put.out | tee $dir/last
}
tensor_sum() { tail -c "$1" "$2" | md5sum; }
# ---- what went over the wire ----
rail_packets() { cat /sys/class/infiniband/rxe"$1"/ports/1/hw_counters/rcvd_pkts 2> /dev/null || echo 0; }
tcp_segments() { awk '/^Tcp:/ && $2 ~ /[0-9]/ {print $11}' /proc/net/snmp; }
# ---- verdicts ----
good() { echo "PASS $*" | tee -a /results/cases; }
bad() {
  echo "FAIL $*" | tee -a /results/cases
  tail -n 8 $dir/log | sed 's/^/  reader| /'
  on_home "tail -n 8 $dir/log" | sed 's/^/  home| /'
}
