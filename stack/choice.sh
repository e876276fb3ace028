# shellcheck shell=bash disable=SC2034
# Which engine runs the services, and whether torch gets a GPU. Sourced by stack/verb and develop/test.
minimum_compose=2.17 # the oldest Compose v2 that knows everything in docker-compose.yml

podman=0 # 1: what docker speaks with is Podman (stack/podman.sh)

choose() { # sets engine (docker or local), gpu (0 or 1) and why (one line that says so)
  local problem
  one_of ENGINE docker podman local
  one_of GPU 0 1
  [[ ${ENGINE:-} != podman ]] || use_podman
  ask_docker
  problem=$(docker_problem)
  if [[ ${ENGINE:-} =~ ^(docker|podman)$ && -n $problem ]]; then
    fail "ENGINE=$ENGINE, but $problem. Fix that, or use ENGINE=local, which needs only Python 3.11."
  elif [[ ${ENGINE:-} == local ]]; then choose_local "ENGINE=local"
  elif [[ -z ${ENGINE:-} ]] && local_is_up; then choose_local "already running without Docker"
  elif [[ -n $problem ]]; then choose_local "$problem"
  else choose_docker; fi
}

ask_docker() { # sets docker_info, the engine's words about itself or its error
  docker_info=$(docker info --format '{{json .}}' 2>&1) || true
}

one_of() { # one_of VARIABLE ALLOWED...: the variable is unset or has one of these values
  local name=$1 value=${!1:-}
  shift
  [[ -z $value || " $* " == *" $value "* ]] || fail "$name=$value is unknown; allowed: $*"
}

docker_problem() { # prints why Docker cannot be used, or nothing
  local compose
  if ! command -v docker >/dev/null; then echo "Docker is not installed"
  elif [[ $docker_info == *"permission denied"* ]]; then echo "the Docker engine refuses this user (permission denied)"
  elif [[ -z $(docker_version) ]]; then echo "no Docker engine answers"
  elif ! compose=$(compose_version); then echo "Docker has no Compose plugin"
  elif older "$compose" "$minimum_compose"; then echo "Compose $compose is older than $minimum_compose"
  fi
}

compose_version() { # prints 2.26.1 for v2.26.1
  local version
  version=$(docker compose version --short 2>/dev/null) && echo "${version#v}"
}

docker_version() { # prints 26.1 for 26.1.5+dfsg1, nothing where no engine answers
  sed -n 's/.*"ServerVersion":"\([0-9]*\.[0-9]*\).*/\1/p' <<<"$docker_info"
}

rootless_docker() { [[ $docker_info == *name=rootless* ]]; }

older() { # older 2.9.1 2.17: the first version comes before the second
  [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

choose_docker() {
  local found name
  engine=docker
  if ((podman)) && compgen -G '/etc/cdi/*nvidia*' >/dev/null; then found="NVIDIA by CDI"
  elif ((podman)); then found="no NVIDIA in /etc/cdi"
  elif [[ $docker_info =~ \"nvidia\":|nvidia\.com/gpu ]]; then found="NVIDIA runtime"; else found="no NVIDIA runtime"; fi
  if [[ -n ${GPU:-} ]]; then gpu=$GPU found+=", GPU=$GPU"
  elif [[ $found == no* ]]; then gpu=0
  elif has_gpu; then gpu=1
  else gpu=0 found+=" but no GPU in sight"; fi
  if rootless_docker; then found="without root, $found"; fi
  name=Docker
  if ((podman)); then name=Podman; fi
  why="$name $(docker_version), $found: $(processor)"
}

choose_local() { # choose_local REASON
  engine=local
  if [[ -n ${GPU:-} ]]; then gpu=$GPU
  elif has_gpu; then gpu=1
  else gpu=0; fi
  why="$1${GPU:+, GPU=$GPU}: local, $(processor)"
}

processor() { if ((gpu)); then echo GPU; else echo CPU; fi; }

has_gpu() { # an NVIDIA driver answers and names a GPU
  [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]]
}

local_is_up() { # local_is_up [head|serve]: a supervisor of the local engine lives (a stale pid file may name somebody else's process)
  local pid
  pid=$(cat ".stack/${1:-supervisord}.pid" 2>/dev/null) &&
    grep -qzxF "TRAINLAB_STACK=$PWD/.stack" "/proc/$pid/environ" 2>/dev/null
}
