# shellcheck shell=bash disable=SC2154
# .env: written once for the one who starts the stack, afterwards theirs. Sourced by stack/verb (after
# stack/choice.sh, whose engine, gpu and docker_info are read here) and, for `setting` alone, by local/install.
unset COMPOSE_FILE COMPOSE_ENV_FILES COMPOSE_DISABLE_ENV_FILE COMPOSE_PATH_SEPARATOR # another project's, not ours
# shellcheck source=stack/dotenv.sh
source stack/dotenv.sh
[[ -n ${COMPOSE_PROJECT_NAME:-} ]] || unset COMPOSE_PROJECT_NAME # to Compose an empty one is none

setting() { # setting NAME DEFAULT: from the environment, else from .env; empty or missing: the default. As Compose does
  local value=${!1-}
  [[ -n ${!1+set} ]] || value=$(in_file "$1")
  printf '%s\n' "${value:-$2}"
}

in_file() { # in_file NAME: what .env alone says
  local name=dotenv_$1
  [[ -n ${dotenvread:-} ]] || read_env
  printf '%s\n' "${!name-}"
}

tracker_locks() { # prints the lock file of each tracker that TRACKERS names
  local known name
  known=$(basename -s .lock -a jupyter/trackers/*.lock | xargs)
  for name in $(setting TRACKERS "" | tr , ' '); do
    [[ " $known " == *" $name "* ]] ||
      fail "TRACKERS=$(setting TRACKERS "") in .env: '$name' is none of $known. Nothing was built."
    echo "jupyter/trackers/$name.lock"
  done
}

torch_extras() { # prints what TORCH_EXTRAS names, each on a line
  local name
  for name in $(setting TORCH_EXTRAS "" | tr , ' '); do
    [[ $name == torchvision || $name == torchaudio ]] ||
      fail "TORCH_EXTRAS=$(setting TORCH_EXTRAS "") in .env: '$name' is none of torchvision torchaudio. Nothing was built."
    echo "$name"
  done
}

write_settings() { # makes .env where there is none, then keeps its COMPOSE_FILE in step with the choice
  local name
  if [[ ! -e .env ]]; then
    new_settings >/dev/null # fails here, before a file exists
    (umask 077 && new_settings >".env.$$" && mv -n ".env.$$" .env)
    give_away .env
    echo "wrote .env: user, token, ports, limits; it is yours from now on"
    [[ $(compose_files "") != *override* ]] || echo "COMPOSE_FILE in .env has $(compose_files "")"
    read_env
  fi
  [[ -r .env ]] || fail ".env cannot be read by $(id -un); its owner is $(owner_of .env). sudo chown $(id -un) .env"
  for name in JUPYTER_PORT TENSORBOARD_PORT; do
    [[ -z ${!name:-} || ${!name} == "$(in_file "$name")" ]] ||
      echo "$name=${!name} is the shell's, for this start; .env has ${name}=$(in_file "$name")"
  done
  if [[ $engine == docker ]]; then keep_project; keep_compose_files; fi
}

new_settings() {
  local user
  user=$(stack_user)
  cat <<END
# Written by make, once, with what the shell gave; change what you like. .env.example explains every name.
TRAINLAB_UID=$(first_value TRAINLAB_UID "${user%:*}")
TRAINLAB_GID=$(first_value TRAINLAB_GID "${user#*:}")
JUPYTER_TOKEN=$(first_value JUPYTER_TOKEN "$(drawn)")
JUPYTER_PORT=$(first_value JUPYTER_PORT 8888)
TENSORBOARD_PORT=$(first_value TENSORBOARD_PORT 6006)
JUPYTER_MEMORY=$(first_value JUPYTER_MEMORY "$(memory_limit)m")
JUPYTER_CPUS=$(first_value JUPYTER_CPUS "$(processors)")
COMPOSE_FILE=$(compose_files "")
END
  [[ $engine != docker ]] || project_lines
}

drawn() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; } # a token or password that nobody can guess

first_value() { quoted "$(setting "$1" "$2")"; }

quoted() { # quoted VALUE: as it stands in .env
  local quote=\'
  if [[ $1 =~ ^[A-Za-z0-9_./:,@%+-]*$ ]]; then printf '%s\n' "$1"
  else printf "'%s'\n" "${1//$quote/\\$quote}"; fi
}

stack_user() { # prints UID:GID that owns what the stack writes: the caller's, never root's
  if rootless_docker; then echo 0:0 # who is outside the one who started the engine
  elif ((EUID)); then echo "$EUID:$(id -g)"
  elif [[ $(owner_of .) != 0:* ]]; then owner_of .
  else echo 1000:1000; fi
}

owner_of() { stat -c %u:%g "$1" 2>/dev/null || stat -f %u:%g "$1"; } # GNU's stat, else BSD's

give_away() { # give_away PATH: what root makes in somebody's project is theirs
  if ((EUID == 0)) && [[ $(owner_of .) != 0:* ]]; then chown "$(owner_of .)" "$1"; fi
}

memory_limit() { # MiB: 80 % of the machine, so that a hungry notebook dies before the desktop does
  local bytes
  bytes=$(sed -n 's/.*"MemTotal":\([0-9]*\).*/\1/p' <<<"$docker_info")
  ((${bytes:-0})) || bytes=$(($(getconf _PHYS_PAGES) * $(getconf PAGE_SIZE)))
  echo $((bytes * 8 / 10 / 1024 / 1024))
}

processors() {
  local count
  count=$(sed -n 's/.*"NCPU":\([0-9]*\).*/\1/p' <<<"$docker_info")
  if ((${count:-0})); then echo "$count"; else getconf _NPROCESSORS_ONLN; fi
}

compose_files() { # compose_files NOW: the list with or without the GPU's and the door's, with the user's override, which
  # Compose itself takes only where nothing sets COMPOSE_FILE; others kept
  local files=:${1:-docker-compose.yml}: name override=""
  for name in docker-compose.{gpu,podman,podman.gpu,door,share}.yml; do files=${files/:$name:/:}; done
  for name in {,docker-}compose.override.{yml,yaml}; do
    if [[ ! -e $name ]]; then files=${files/:$name:/:}
    else override=${override:-$name}; fi
  done
  [[ -z $override || $files == *:$override:* ]] || files+=$override:
  files=${files#:}
  [[ $(setting TENSORBOARD_PORT "") != off ]] || files+=docker-compose.door.yml:
  ((gpu)) && files+=docker-compose.gpu.yml:
  shared && files+=docker-compose.share.yml:
  ((podman)) && files+=docker-compose.podman.yml:
  ((podman && gpu)) && files+=docker-compose.podman.gpu.yml
  echo "${files%:}"
}

keep_compose_files() { # plain `docker compose` then agrees with make; every other byte of .env stays
  local now wanted
  now=$(in_file COMPOSE_FILE)
  wanted=$(compose_files "$now")
  [[ $now != "$wanted" ]] || return 0
  write_env replaced_compose_files "$wanted"
  echo "set COMPOSE_FILE=$wanted in .env"
}

write_env() { # write_env COMMAND...: what it prints takes the place of .env, whose owner and mode stay
  (umask 077 && "$@" >".env.$$")
  chmod --reference=.env ".env.$$" 2>/dev/null || chmod 600 ".env.$$"
  ((EUID)) || chown "$(owner_of .env)" ".env.$$"
  mv ".env.$$" .env
  read_env
}

replaced_compose_files() { # prints .env with this COMPOSE_FILE: in its own line, or in one more, which then counts
  local line=${dotenvline_COMPOSE_FILE:-0} alone="^[^'\"]*(('[^']*'|\"[^\"]*\")[[:space:]]*(#.*)?)?$"
  [[ $(sed -n "${line}p" .env 2>/dev/null) =~ $alone ]] || line=0
  FILES="COMPOSE_FILE=$(quoted "$1")" awk -v line="$line" '
    NR == line { print ENVIRON["FILES"]; next }
    { print }
    END { if (!line) print ENVIRON["FILES"] }' .env
}

of_pyproject() { # of_pyproject TABLE NAME: prints a text that stands under NAME in a table of pyproject.toml, in "" or in ''
  sed -nE '/^ *\['"$1"'\]/,/^ *\[/{s/^ *'"$2"' *= *("([^"]*)"|'\''([^'\'']*)'\'').*/\2\3/p}' pyproject.toml | head -n 1
}
