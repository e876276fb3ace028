# shellcheck shell=bash disable=SC2154
# Sharing (docs/https.md): JupyterLab at one HTTPS address, behind one password, and no other port. SHARE in .env, or of
# `make up SHARE=NAME`, is the name. Sourced by stack/verb.
settings_of_share=(SHARE SHARE_PORT SHARE_HTTP_PORT SHARE_ADDRESS SHARE_TLS SHARE_ACME SHARE_CULL)
minimum_compose_share=2.24 # the oldest that takes the ports of a service away (!reset)

shared() { [[ -n $(setting SHARE "") ]]; }

check_share() { # refuses what would share nothing, or more than meant
  local name running
  name=$(setting SHARE "")
  if engine_running; then
    running=$(engine_shared_as)
    [[ $running == "$name" ]] ||
      fail "the stack runs already, $([[ -n $running ]] && echo "shared as $running" || echo "not shared"), and to change that is to start it anew. Nothing was changed.
       First \`make down\`, which stops trainings (they save a checkpoint), then \`make up SHARE=$name\`"
  fi
  shared || return 0
  [[ $name =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$ && ! $name =~ ^[0-9.]+$ ]] ||
    fail "SHARE=$name is no name of this machine, in small letters, as people write it into a browser: lab.example.org. Nothing was started."
  [[ $(setting SHARE_PASSWORD_HASH "") == argon2:* ]] ||
    fail "SHARE=$name needs a password, and .env has none: \`make password\` asks for one. Nothing was started."
  check_port_number SHARE_PORT
  check_port_number SHARE_HTTP_PORT
  [[ $(port_of share) != "$(setting SHARE_HTTP_PORT 80)" ]] ||
    fail "SHARE_PORT and SHARE_HTTP_PORT are both $(port_of share); each needs its own. Nothing was started."
  [[ $(setting SHARE_ADDRESS 0.0.0.0) =~ ^([0-9]+(\.[0-9]+){3}|\[[0-9a-fA-F:.]+\])$ ]] ||
    fail "SHARE_ADDRESS=$(setting SHARE_ADDRESS "") is no address of this machine, like 10.0.0.5 or [fd00::5]; 0.0.0.0 is all of them. Nothing was started."
  [[ $(setting SHARE_CULL 12h) =~ ^(0|[1-9][0-9]{0,5}[smhd])$ ]] ||
    fail "SHARE_CULL=$(setting SHARE_CULL "") is no time such as 12h, 30m or 2d, nor 0 for never. Nothing was started."
  check_certificate
  engine_check_share
}

check_certificate() {
  local tls acme file
  tls=$(setting SHARE_TLS "") acme=$(setting SHARE_ACME "")
  [[ -z $tls || -z $acme ]] ||
    fail "SHARE_TLS names a certificate, and SHARE_ACME asks for one: set one of the two, or none. Nothing was started."
  [[ -z $acme || $acme =~ ^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+$ ]] ||
    fail "SHARE_ACME=$acme is no mail address, to which an authority could write. Nothing was started."
  [[ -n $tls ]] || return 0
  for file in server.crt server.key; do
    [[ -f $tls/$file ]] || fail "SHARE_TLS=$tls has no $file: a folder with server.crt and server.key is expected. Nothing was started."
  done
}

keep_share() { # plain `docker compose`, `make status` and the next `make up` then agree with this one
  local name
  for name in "${settings_of_share[@]}"; do
    [[ -n ${!name+set} && ${!name} != "$(in_file "$name")" ]] || continue
    write_env with_line "$name" "${!name}"
    echo "set $name=${!name} in .env$([[ $name != SHARE || -z ${!name} ]] || echo ": shared until \`make down\` and \`make up SHARE=\`")"
  done
}

with_line() { # with_line NAME VALUE: prints .env with this value of a name
  grep -v "^$1=" .env || true
  echo "$1=$(quoted "$2")"
}

password() { # asks for it, twice, and keeps its hash alone
  local first second hashed
  check_folders
  alone up write_settings
  [[ $engine != docker ]] || open_folders
  read_secret first "Password for everybody who comes to the shared stack (12 characters or more): "
  ((${#first} >= 12)) || fail "it has ${#first} characters, and 12 are the least: whoever guesses it may do what you may. Nothing was changed."
  read_secret second "Once more: "
  [[ $first == "$second" ]] || fail "the two are not the same. Nothing was changed."
  # over a pipe: a command line is for all to read
  hashed=$(printf %s "$first" | engine_execute python -c 'import sys
from jupyter_server.auth.security import passwd
print(passwd(sys.stdin.buffer.read().decode()))' | tail -n 1)
  [[ $hashed == argon2:* ]] || fail "its hash was not made; what went wrong stands above. Nothing was changed."
  write_env with_line SHARE_PASSWORD_HASH "$hashed"
  chmod go-rwx .env
  echo "wrote SHARE_PASSWORD_HASH into .env; the password itself is kept nowhere"
  ! engine_running || echo "What runs goes on with the old one: \`make down\`, then \`make up\`. That logs everybody out."
}

read_secret() { # read_secret NAME QUESTION: sets a variable to a line that is not shown
  IFS= read -rsp "$2" "$1" || fail "no password was given. Nothing was changed."
  [[ ! -t 0 ]] || echo >&2
}

share_address() { # prints https://NAME, with the port where it is another than HTTPS's own
  local port
  port=$(port_of share)
  echo "https://$(setting SHARE "")$([[ $port == 443 ]] || echo ":$port")"
}

say_share() {
  local certificate
  if [[ -n $(setting SHARE_TLS "") ]]; then certificate="that of SHARE_TLS"
  elif [[ -n $(setting SHARE_ACME "") ]]; then certificate="by ACME; \`make logs ARGS=share\` tells whether it came"
  else certificate=$(engine_share_root); fi
  echo "JupyterLab   $(share_address)/lab (asks for the password that \`make password\` has set)"
  echo "Board        $(share_address)/board/"
  echo "TensorBoard  $(share_address)/tensorboard/"
  echo "certificate  $certificate"
}
