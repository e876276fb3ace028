# shellcheck shell=bash
# What is looked at before anything is built or started. Sourced by stack/verb.

check_settings() { # refuses values that would fail later with a worse message
  local name
  for name in JUPYTER_PORT TENSORBOARD_PORT; do check_port_number "$name"; done
  ! has_no_port tensorboard || [[ $engine != docker ]] || ! older "$(compose_version)" 2.18 ||
    fail "TENSORBOARD_PORT=off needs Compose 2.18, which can take a port away, and this is $(compose_version)"
  [[ $(port_of jupyter) != "$(port_of tensorboard)" ]] ||
    fail "JUPYTER_PORT and TENSORBOARD_PORT are both $(port_of jupyter); each service needs its own port"
  for name in TRAINLAB_UID TRAINLAB_GID; do
    [[ $(setting "$name" 1000) =~ ^[0-9]+$ ]] || fail "$name=$(setting "$name" "") is not a number; see .env"
  done
  if [[ $engine == docker ]] && rootless_docker && [[ -e .env && $(setting TRAINLAB_UID "").$(setting TRAINLAB_GID "") != 0.0 ]]; then
    fail "Docker runs without root here: its user 0 is you, and every other is nobody's. Nothing was started.
       Put TRAINLAB_UID=0 and TRAINLAB_GID=0 into .env"
  fi
  tracker_locks >/dev/null
  torch_extras >/dev/null
}

check_port_number() { # check_port_number VARIABLE
  local value
  value=$(setting "$1" "$(default_port "$1")")
  [[ $1.$value != TENSORBOARD_PORT.off ]] || return 0
  if ! [[ $value =~ ^[1-9][0-9]{0,4}$ ]] || ((value > 65535)); then
    fail "$1=$value is not a port: a number from 1 to 65535$([[ $1 != TENSORBOARD_PORT ]] || echo ", or off"); see .env"
  fi
}

default_port() {
  case $1 in
    JUPYTER_PORT) echo 8888 ;;
    TENSORBOARD_PORT) echo 6006 ;;
    HEAD_PORT) echo 5432 ;;
    SERVE_PORT) echo 8000 ;;
    HEAD_STORE_PORT) echo 29400 ;;
    SHARE_PORT) echo 443 ;;
    SHARE_HTTP_PORT) echo 80 ;;
  esac
}

port_variable() {
  case $1 in
    jupyter) echo JUPYTER_PORT ;;
    tensorboard) echo TENSORBOARD_PORT ;;
    head) echo HEAD_PORT ;;
    serve) echo SERVE_PORT ;;
    store) echo HEAD_STORE_PORT ;;
    share) echo SHARE_PORT ;;
  esac
}

port_of() { # port_of SERVICE: the port that the settings give it
  local name
  name=$(port_variable "$1")
  setting "$name" "$(default_port "$name")"
}

has_no_port() { [[ $(port_of "$1") == off ]]; } # has_no_port SERVICE: it is reached through JupyterLab's door alone

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_ports() { # check_ports VERB SERVICE...: refuses a port that another program listens on; our own running services are fine
  local service port free name
  for service in "${@:2}"; do
    ! has_no_port "$service" || continue
    port=$(port_of "$service") name=$(port_variable "$service")
    [[ $(engine_port "$service") != "$port" ]] || continue
    port_taken "$port" || continue
    free=$((port + 1))
    while port_taken "$free"; do free=$((free + 1)); done
    fail "port $port, wanted for $service, is taken by another program. Nothing was started.
       Choose another: $name=$free make $1, or for good with $name=$free in .env"
  done
}

check_folders() { # refuses to start without the folders that the services share
  local folder
  for folder in logs data models notebooks; do
    [[ -d $folder ]] || fail "$folder/ is missing. Make it: mkdir $folder"
    [[ $engine == docker || -w $folder ]] || fail "$folder/ belongs to $(owner_of $folder), and $(id -un) cannot write to it.
       Fix it: sudo chown -R $(id -u):$(id -g) $folder"
  done
}

check_disk() { # check_disk FOLDER GIB PURPOSE
  local free_kib
  free_kib=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }') || return 0
  [[ -z $free_kib ]] || ((free_kib >= $2 * 1024 * 1024)) ||
    fail "$3 needs about $2 GiB in $1, and $((free_kib / 1024 / 1024)) GiB are free there. Nothing was built.
       Free some space first (\`docker system df\` and \`du -sh\` tell where it went)."
}
