# What the cases share: gets that are compared byte by byte, gets that a fault strikes, what must hold after it.

# The reader's broker with these lines (as write_config takes them), connected.
reader() { # TRANSPORT [LINES OF write_config...]
  local over=$1
  shift
  write_config "$@"
  if ! cmp -s $dir/conf $dir/conf.running || ! kill -0 "$(cat $dir/pid 2> /dev/null)" 2> /dev/null; then
    [ ! -e $dir/pid ] || stop_broker
    cp $dir/conf $dir/conf.running
    check "the broker starts" start_broker || return
  fi
  check "the peer is reached over $over" await 120 peer_is_over "$over"
}
get() { # REF [DEADLINE]: into got.safetensors
  rm -f $dir/got.safetensors
  ctl get "$1" --json --output $dir/got.safetensors --deadline "${2:-120s}" > $dir/get.log 2>&1
}
# A new sample of so many bytes is got bit-exact, over rdma or tcp; figures: time, packets, segments.
get_fresh() { # BYTES OVER
  local ref before segments file
  turn=$((1 - ${turn:-0})) # so that what the last get left behind is not what this one wants
  file=$(file_of "$1" $turn)
  ref=$(on_home "put_file $file fresh-$RANDOM$RANDOM") || { check "a put: $ref" false || return; }
  count_packets
  before=$packets segments=$(tcp_segments)
  check "a get of $1 bytes" get "$ref" || { cat $dir/get.log; return 1; }
  count_packets
  before=$((packets - before)) segments=$(($(tcp_segments) - segments))
  figure "$(numfmt --to=iec "$1") in $(field elapsed_ms "$(cat $dir/get.log)") ms, $before rxe packets, $segments tcp segments"
  check "bit-exact" cmp "$file" $dir/got.safetensors && on_home "ctl abort '$ref'" || return
  if [ "$2" = rdma ]; then
    check "the bytes went over rxe" [ $before -gt $(($1 / 4096)) ] && check "not over tcp" [ $segments -lt 64 ]
  else
    check "the bytes went over tcp" [ $segments -gt 1 ]
  fi
}
# Starts a get of a big sample and returns when part of it has come, over RDMA.
begin_get() {
  local ref
  which=$((1 - ${which:-0}))
  ref=$(on_home "big $which") || { check "a put: $ref" false || return; }
  count_packets
  begun_packets=$packets
  get "$ref" 60s &
  getter=$!
  check "the read is under way over rxe" await 60 more_packets_than $((begun_packets + 600))
  struck_ms=$(now_ms)
}
# To be said right after the fault: not all had come by then.
strikes_mid_read() {
  check "the fault comes in the middle of the read" not more_packets_than $((begun_packets + big_bytes / 4096)) && return
  too_late=1
  return 1
}
more_packets_than() { count_packets && [ $packets -gt "$1" ]; }
# The get ends; its status in $ended. A get that succeeds brought every byte, one that fails no file.
get_ends() {
  check "the get ends within 90 s" await 90 not kill -0 $getter || return
  local ms=$(($(now_ms) - struck_ms))
  wait $getter
  ended=$?
  if [ $ended = 0 ]; then
    figure "the get succeeded $ms ms after the fault"
    check "no wrong byte" cmp "$(file_of $big_bytes $which)" $dir/got.safetensors
  else
    figure "the get failed $ms ms after the fault: $(tail -n 1 $dir/get.log)"
    check "a status with a sentence" [ -s $dir/get.log ] && check "no file" [ ! -e $dir/got.safetensors ]
  fi
}
# The fault is gone: within two minutes the peer is reached over RDMA and a get goes over it; nothing is left behind.
works_again() {
  local since=$SECONDS
  check "the peer is reached over rdma again" await 120 peer_is_over rdma || return
  figure "rdma again after $((SECONDS - since)) s"
  get_fresh 2097152 rdma && settled
}
settled() {
  check "nothing is left on the reader" await 60 is_idle && check "nothing is left on the home" on_home 'await 60 is_idle'
}
