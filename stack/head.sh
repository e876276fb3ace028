# shellcheck shell=bash
# The head: the database that sweeps on several machines share (docs/hosts.md). Sourced by stack/verb.

head_up() {
  check_head
  write_settings
  keep_password
  engine_head_up
  say_head
}

check_head() { # refuses settings that would fail later with a worse message
  local tls file
  check_port_number HEAD_PORT
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
  echo "\`make unhead\` stops it; what it holds stays."
}
