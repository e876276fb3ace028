# shellcheck shell=bash
# The head: the database that sweeps on several machines share (docs/hosts.md), and the store at which the hosts of one
# training meet (docs/nodes.md). Sourced by stack/verb.

head_up() {
  local services=(head) missing
  check_head
  write_settings
  keep_password
  missing=$(store_lacks)
  [[ -n $missing ]] || services+=(store)
  check_ports head "${services[@]}"
  engine_head_up
  say_head
}

store_lacks() { # prints why there is no store, if there is none
  if ! is_private "$(head_address)"; then
    echo "the internet may reach HEAD_ADDRESS=$(head_address), and a store has no password"
  else engine_store_lacks; fi
}

is_private() { # is_private ADDRESS: loopback, or of a network of one's own (RFC 1918, 4193, 6598, and link-local ones)
  [[ $1 =~ ^(127|10)\. || $1 =~ ^192\.168\. || $1 =~ ^169\.254\. || $1 =~ ^172\.(1[6-9]|2[0-9]|3[01])\. ||
    $1 =~ ^100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\. || ${1,,} =~ ^\[(::1\]|f[cd]|fe[89ab]) ]]
}

check_head() { # refuses settings that would fail later with a worse message
  local tls file
  check_port_number HEAD_PORT
  check_port_number HEAD_STORE_PORT
  [[ $(port_of head) != "$(port_of store)" ]] || fail "HEAD_PORT and HEAD_STORE_PORT are both $(port_of head); each needs its own. Nothing was started."
  [[ $(head_address) =~ ^([0-9]+(\.[0-9]+){3}|\[[0-9a-fA-F:.]+\])$ ]] ||
    fail "HEAD_ADDRESS=$(head_address) is no address of this machine, like 10.0.0.5 or [fd00::5]; 0.0.0.0 is all of them. Nothing was started."
  tls=$(setting HEAD_TLS "")
  [[ -n $tls ]] || return 0
  for file in server.crt server.key; do
    [[ -f $tls/$file ]] || fail "HEAD_TLS=$tls has no $file: a folder with server.crt and server.key is expected. Nothing was started."
  done
}

head_address() { setting HEAD_ADDRESS 127.0.0.1; }

keep_password() { # draws one where .env has none
  [[ -z $(setting HEAD_PASSWORD "") ]] || return 0
  write_env with_password
  echo "wrote HEAD_PASSWORD into .env: whoever has it reads and changes the sweeps"
}

with_password() {
  grep -v '^HEAD_PASSWORD=' .env || true
  echo "HEAD_PASSWORD=$(drawn)"
}

say_head() {
  local address
  address=$(head_address):$(port_of head)
  echo
  echo "head         $address (its password is HEAD_PASSWORD in .env)"
  if [[ ! $(head_address) =~ ^(127\.|\[::1\]) ]]; then
    echo "             Everybody who reaches this address can knock: keep it to a network of your own, never the internet."
    [[ -n $(setting HEAD_TLS "") ]] || echo "             Sweeps are readable on the way: HEAD_TLS in .env names a certificate."
  fi
  engine_say_head "$address"
  if [[ -z $missing ]]; then
    echo "store        $(head_address):$(port_of store) (no password: trainlab run WHAT --nodes 1:2 --join $(head_address):$(port_of store))"
  else echo "store        not started: $missing"; fi
  echo "\`make unhead\` stops $([[ -n $missing ]] && echo it || echo both); what the database holds stays."
}
