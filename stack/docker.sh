# shellcheck shell=bash
# The engine with Docker: the two services as containers. Defines engine_*; sourced by stack/verb.
images=(trainlab-tensorboard:latest)
if ((gpu)); then images+=(trainlab-jupyter:cuda) gib=20; else images+=(trainlab-jupyter:cpu) gib=6; fi

engine_build() {
  check_disk "$(engine_folder)" "$gib" "Building the images"
  ((gpu)) || fetch_torch
  echo "building the images (the first time takes some minutes)"
  COMPOSE_FILE=$(compose_files "$(setting COMPOSE_FILE "")") docker compose build
  (umask 077 && mkdir -p .stack)
  image_inputs >".stack/built-$gpu"
}

engine_folder() { # where the engine keeps images, if that is on this machine; else the project's folder
  local folder
  folder=$(sed -n 's/.*"DockerRootDir":"\([^"]*\)".*/\1/p' <<<"$docker_info")
  if [[ -d $folder ]]; then echo "$folder"; else echo .; fi
}

fetch_torch() { # torch's CPU wheel from where this machine's pip is told to look, if it is there: no matter if not
  local version
  version=$(sed -n 's/.*"torch==\([0-9.]*\)".*/\1+cpu/p' pyproject.toml)
  compgen -G "jupyter/wheels/torch-$version-*.whl" >/dev/null && return
  python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 --retries 0 --timeout 5 \
    --dest jupyter/wheels "torch==$version" >/dev/null 2>&1 || true
}

image_inputs() { # a digest of all that the images are made from, but for the code, which is mounted
  {
    tracker_locks
    find jupyter tensorboard docker-compose*.yml pyproject.toml -type f ! -name '*.whl' -exec cat {} +
  } | cksum
}

built() { # both images are there, and made from what lies here
  [[ $(cat ".stack/built-$gpu" 2>/dev/null) == "$(image_inputs)" ]] &&
    docker image inspect "${images[@]}" >/dev/null 2>&1
}

engine_up() {
  check_ports
  open_folders
  built || engine_build
  docker compose up --detach --wait || give_up
}

open_folders() { # started by root, the containers run as another user, who must be able to write here
  local user folder
  ((EUID == 0)) || return 0
  user=$(setting TRAINLAB_UID 1000):$(setting TRAINLAB_GID 1000)
  [[ $(owner_of .) == "$user" || -n $(find . -maxdepth 0 -perm -o=rx) ]] ||
    fail "user $user, as whom the containers run, cannot look into $PWD. Open it: chmod o+rx $PWD"
  for folder in logs data notebooks src; do
    [[ -n $(find "$folder" ! -user "${user%:*}" -print -quit) ]] || continue
    chown -R "$user" "$folder"
    echo "gave $folder/ to user $user, as whom the containers run"
  done
}

give_up() {
  docker compose logs --tail 20 2>&1 | sed "s/^\x1b\[2K//" >&2 # the escape clears a line, in a terminal
  docker compose down >/dev/null 2>&1
  fail "the services did not become healthy; their last words are above. Everything was stopped."
}

engine_running() { [[ -n $(docker compose ps --quiet --status running jupyter 2>/dev/null) ]]; }

engine_port() { # engine_port SERVICE: the port it is published on, nothing when it is down
  local inside published
  inside=$(port_of "$1")
  published=$(docker compose port "$1" "$inside" 2>/dev/null) || true
  echo "${published##*:}"
}

engine_state() {
  local state
  state=$(docker compose ps --format '{{.Health}}' "$1" 2>/dev/null) || true
  echo "${state:-down}"
}

engine_logs() { # engine_logs [SERVICE]: goes on with what is added, in a terminal
  local options=(--tail 100)
  [[ ! -t 1 ]] || options+=(--follow)
  exec docker compose logs "${options[@]}" "$@"
}

engine_shell() {
  engine_running || fail "nothing runs; \`make up\` starts it"
  exec docker compose exec "$(terminal)" jupyter env -u JUPYTER_TOKEN bash "$@"
}

engine_trainlab() { # in the running container, else in one of its own that goes away afterwards
  local how=(exec)
  engine_running || { built || engine_build >&2; how=(run --rm --no-deps); }
  docker compose "${how[@]}" "$(terminal)" jupyter env -u JUPYTER_TOKEN trainlab "$@"
}

terminal() { if [[ -t 0 && -t 1 ]]; then echo --interactive; else echo --no-TTY; fi; }

engine_sbom() {
  local service
  built || engine_build
  for service in jupyter tensorboard; do
    docker compose run --rm --no-deps --no-TTY --entrypoint python3 "$service" - "$service" debian \
      <stack/sbom.py >".stack/$service.cdx.json"
    echo "wrote .stack/$service.cdx.json"
  done
}

engine_down() {
  docker compose down --remove-orphans
  echo "stopped: nothing of the stack runs any more"
}

engine_clean() {
  docker compose down --remove-orphans --volumes
  docker image rm --force trainlab-jupyter:cpu trainlab-jupyter:cuda trainlab-tensorboard:latest 2>/dev/null || true
}
