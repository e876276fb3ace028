# shellcheck shell=bash
# The engine with Docker: the services as containers. Defines engine_*; sourced by stack/verb.
profiles=head,serve,worker${COMPOSE_PROFILES:+,$COMPOSE_PROFILES}
if ((gpu)); then gib=20 size="about 7 GB"; else gib=6 size="2 GB"; fi

image_of() { # image_of SERVICE
  echo "trainlab-$1:$project$([[ $1 != jupyter ]] || echo "-$(torch_build)")"
}

images=("$(image_of tensorboard)" "$(image_of jupyter)")

engine_build() {
  check_disk "$(engine_folder)" "$gib" "Building the images"
  ((gpu)) || fetch_torch
  COMPOSE_FILE=$(compose_files "$(in_file COMPOSE_FILE)") quietly .stack/build.log \
    "building the images (the first time some minutes; $size on the disk)" build_images ||
    fail "the images were not built; what the build said last is above, all of it in .stack/build.log"
  note_built
}

build_images() { if ((podman)); then podman_build "${images[@]}"; else docker compose build; fi; }

get_images() {
  if pull_images tensorboard jupyter; then note_built; else engine_build; fi
}

get_image() { # get_image SERVICE SIZE: that of a service of a profile, pulled or built where it is not made from what lies here
  if [[ $(cat ".stack/built-$1" 2>/dev/null) == "$(image_inputs "$1")" ]] && docker image inspect "$(image_of "$1")" >/dev/null 2>&1
  then return; fi
  if [[ $1 =~ ^(head|share)$ ]] || ! pull_images "$1"; then # Debian's package alone: built in half a minute, and in no registry
    check_disk "$(engine_folder)" 1 "Building the image"
    quietly .stack/build.log "building the image of the service $1 (once; $2 on the disk)" build_image "$1" ||
      fail "the image was not built; what the build said last is above, all of it in .stack/build.log"
  fi
  image_inputs "$1" >".stack/built-$1"
  give_away ".stack/built-$1"
}

build_image() { if ((podman)); then podman_build "$(image_of "$1")"; else docker compose build "$1"; fi; }

engine_folder() { # where the engine keeps images, if that is on this machine; else the project's folder
  local folder
  folder=$(sed -n 's/.*"DockerRootDir":"\([^"]*\)".*/\1/p' <<<"$docker_info")
  if [[ -d $folder ]]; then echo "$folder"; else echo .; fi
}

fetch_torch() { # torch's CPU wheel from where this machine's pip is told to look, if it is there: no matter if not
  local version
  version=$(sed -n 's/^torch==\([0-9.]*\).*/\1+cpu/p' jupyter/torch/cuda.lock)
  compgen -G "jupyter/wheels/torch-$version-*.whl" >/dev/null && return
  python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 --retries 0 --timeout 5 \
    --dest jupyter/wheels "torch==$version" >/dev/null 2>&1 || true
}

engine_up() {
  local before
  if shared; then check_ports up share; else check_ports up jupyter tensorboard; fi
  open_folders
  built || get_images
  ! shared || get_image share "0.1 GB"
  before=$(running_services)
  if ((podman)); then podman_up; else docker compose up --detach --wait; fi || give_up "$before"
}

running_services() { docker compose ps --services --status running 2>/dev/null || true; }

open_folders() { # started by root, the containers run as another user, who must be able to write here
  local user folder
  ((EUID == 0)) || return 0
  user=$(setting TRAINLAB_UID 1000):$(setting TRAINLAB_GID 1000)
  [[ $(owner_of .) == "$user" || -n $(find . -maxdepth 0 -perm -o=rx) ]] ||
    fail "user $user, as whom the containers run, cannot look into $PWD. Open it: chmod o+rx $PWD"
  for folder in logs data models notebooks src; do
    [[ -n $(find "$folder" ! -user "${user%:*}" -print -quit) ]] || continue
    chown -R "$user" "$folder"
    echo "gave $folder/ to user $user, as whom the containers run"
  done
}

give_up() { # give_up BEFORE: ends what this start has started, never a service that ran before it, and its trainings
  local service left=""
  docker compose logs --tail 20 2>&1 | sed "s/^\x1b\[2K//" >&2 # the escape clears a line, in a terminal
  for service in jupyter tensorboard share; do
    if grep -qx "$service" <<<"$1"; then left+="${left:+ and }$service"
    else docker compose rm --stop --force "$service" >/dev/null 2>&1 || true; fi
  done
  [[ -n $left ]] || { docker compose down >/dev/null 2>&1 || true; left=nothing; }
  fail "the services did not become healthy; their last words are above. What this start had started was stopped; left running: $left."
}

engine_running() { [[ -n $(docker compose ps --quiet --status running jupyter 2>/dev/null) ]]; }

engine_port() { # engine_port SERVICE: the port it is published on, nothing when it is down
  docker ps --filter "label=$label.project=$project" --filter "label=$label.service=$1" --format '{{.Ports}}' 2>/dev/null |
    sed -n 's/.*:\([0-9]*\)->.*/\1/p' | tail -n 1
}

engine_state() {
  local state
  if ((podman)); then state=$(podman_state "$1")
  else state=$(all_profiles ps --format '{{.Health}}' "$1" 2>/dev/null) || true; fi
  echo "${state:-down}"
}

all_profiles() { # all_profiles COMMAND...: Compose leaves a service of a profile out of what it does, else
  COMPOSE_PROFILES=$profiles docker compose "$@"
}

engine_shared_as() { # under which name the running stack is shared; nothing where it is not, or does not run
  container_of jupyter '{{if .State.Running}}{{range .Config.Env}}{{println .}}{{end}}{{end}}' | sed -n 's/^SHARE=//p'
}

engine_check_share() {
  local compose
  ((!podman)) || fail "ENGINE=podman shares nothing: use Docker, or ENGINE=local. Nothing was started."
  compose=$(docker compose version --short)
  ! older "${compose#v}" "$minimum_compose_share" ||
    fail "Compose ${compose#v} is older than $minimum_compose_share, which sharing needs. Update it, or use ENGINE=local. Nothing was started."
}

engine_share_root() { # copies the root certificate of Caddy's own authority to where it can be handed out
  local root=.stack/share-root.crt
  if docker compose exec --no-TTY share cat /var/lib/share/caddy/pki/authorities/local/root.crt >"$root.$$" 2>/dev/null </dev/null; then
    mv "$root.$$" "$root"
    give_away "$root"
    echo "of its own authority: install $root where people browse (docs/https.md)"
  else
    rm -f "$root.$$"
    echo "of its own authority, which is not there yet: \`make logs ARGS=share\`"
  fi
}

engine_head_up() {
  local service
  get_image head "0.2 GB"
  all_profiles up --detach --no-deps --no-build "${services[@]}"
  for service in "${services[@]}"; do
    ! wait_for_service "$service" || continue
    all_profiles logs --no-log-prefix --tail 20 "$service" >&2 || true
    if [[ $service == store ]]; then # sweeps may be using the head, which has nothing to do with it
      all_profiles rm --stop --force store >/dev/null 2>&1 || true
      fail "the store did not become healthy, and was removed; the head goes on. The store's last words are above"
    fi
    all_profiles rm --stop --force head store >/dev/null 2>&1 || true
    fail "the head did not become healthy, and was stopped; its last words are above"
  done
}

engine_store_lacks() {
  docker image inspect "${images[1]}" >/dev/null 2>&1 ||
    echo "it runs in JupyterLab's image, which is not here yet. \`make build\`, then \`make head\`"
}

wait_for_service() { # wait_for_service NAME: until it is healthy, for a minute and a half; not where it ends again and again
  local tries
  for ((tries = 0; tries < 450; tries++)); do
    [[ $(engine_state "$1") != healthy ]] || return 0
    [[ $(container_of "$1" '{{.RestartCount}}') =~ ^0?$ ]] || return 1
    sleep 0.2
  done
  return 1
}

container_of() { # container_of SERVICE FORMAT: tells of its container, nothing where there is none
  local container
  container=$(all_profiles ps --all --quiet "$1" 2>/dev/null) || true
  [[ -z $container ]] || docker inspect --format "$2" "$container" 2>/dev/null || true
}

engine_serve_up() { # sets renewed to 1 where the service runs as it should, and has only to read models/served anew
  local before
  get_image serve "0.3 GB"
  before=$(container_of serve '{{.Id}} {{.State.StartedAt}}')
  # one that ends again and again runs, to the engine: it would end at the signal, too
  if [[ -n $before && $(engine_state serve) != healthy ]]; then
    all_profiles rm --stop --force serve
    before=""
  fi
  all_profiles up --detach --no-deps --no-build serve
  if [[ -n $before && $(container_of serve '{{.Id}} {{.State.StartedAt}}') == "$before" ]]; then renewed=1
  elif ! wait_for_service serve; then
    all_profiles logs --no-log-prefix --tail 20 serve >&2
    all_profiles rm --stop --force serve >/dev/null 2>&1 || true
    fail "the service did not become healthy, and was stopped; its last words are above"
  fi
}

engine_serve_ready() { # engine_serve_ready [1]: what it serves; with 1 it reads models/served anew first
  # by the init, which hands the signal on: after one of `docker kill` the engine starts the service no more by itself
  all_profiles exec --no-TTY serve python /opt/trainlab/ready.py "$@"
}

engine_serve_down() {
  all_profiles rm --stop --force serve
  echo "stopped: the service. models/ stays as it is"
}

engine_say_head() {
  echo "             In the containers (\`make sweep\`, JupyterLab, workers) its address is head."
}

engine_head_down() {
  all_profiles rm --stop --force head store
  echo "stopped: the head. Workers wait for it, or give their runs up after a minute"
}

engine_logs() { # engine_logs [SERVICE]: goes on with what is added, in a terminal
  local options=(--tail 100)
  [[ ! -t 1 ]] || options+=(--follow)
  COMPOSE_PROFILES=$profiles exec docker compose logs "${options[@]}" "$@"
}

engine_shell() {
  engine_running || fail "nothing runs; \`make up\` starts it"
  ask_for_terminal
  exec docker compose exec "${terminal[@]}" jupyter env -u JUPYTER_TOKEN -u SERVE_TOKEN -u SHARE_PASSWORD_HASH bash "$@"
}

engine_execute() { # engine_execute COMMAND...: in the running container, else in one of its own that goes away afterwards
  local how=(exec) terminal
  engine_running || { built || alone up get_images >&2; how=(run --rm --no-deps); }
  ask_for_terminal
  how+=("${terminal[@]}")
  if [[ $2 =~ ^(run|sweep)$ && ${terminal[0]} == --no-TTY ]]; then pass_signals_on "$@"
  else docker compose "${how[@]}" jupyter env -u JUPYTER_TOKEN -u SERVE_TOKEN -u SHARE_PASSWORD_HASH TRAINLAB_MAKE=1 "$@"; fi
}

ask_for_terminal() { # sets terminal; not printed, because in $(...) standard output is a pipe
  if [[ -t 0 && -t 1 ]]; then terminal=(--interactive); else terminal=(--no-TTY); fi
}

pass_signals_on() { # pass_signals_on COMMAND...: where no terminal hands a Ctrl-C on to the container
  local client code mark=TRAINLAB_CALLER=$$.$RANDOM
  set -m # the client in a process group of its own, so that it lives to show how the run ends
  docker compose "${how[@]}" jupyter env -u JUPYTER_TOKEN -u SERVE_TOKEN -u SHARE_PASSWORD_HASH TRAINLAB_MAKE=1 "$mark" "$@" </dev/null &
  client=$!
  set +m
  # shellcheck disable=SC2064 # the mark of now
  trap "pass_on INT $mark" INT
  # shellcheck disable=SC2064
  trap "trap '' TERM; pass_on TERM $mark" TERM # once: make hands on what the whole group has got already
  while :; do
    code=0
    wait "$client" || code=$?
    kill -0 "$client" 2>/dev/null || return "$code" # else a signal ended the waiting alone
  done
}

pass_on() { # pass_on SIGNAL MARK: to the process that was called with this mark; its parent is outside of the container
  docker compose exec --no-TTY jupyter bash -c 'for each in /proc/[0-9]*; do
    if grep -qzxF "$2" "$each/environ" && grep -q "^PPid:.0$" "$each/status"; then kill "-$1" "${each#/proc/}"; fi
  done 2>/dev/null' pass_on "$1" "$2" || true
}

engine_sbom() {
  local service services=(jupyter tensorboard)
  built || alone up get_images
  ! docker image inspect "$(image_of serve)" >/dev/null 2>&1 || services+=(serve)
  for service in "${services[@]}"; do
    all_profiles run --rm --no-deps --no-TTY --entrypoint python3 "$service" - "$service" debian \
      <stack/sbom.py >".stack/$service.cdx.json"
    echo "wrote .stack/$service.cdx.json"
  done
}

engine_down() {
  all_profiles down --remove-orphans
  echo "stopped: nothing of the stack runs any more"
}

engine_clean() {
  all_profiles down --remove-orphans --volumes
  docker volume rm --force "${project}_share" "${project}_door" >/dev/null # where it is not shared now, but was
  docker image rm --force "trainlab-jupyter:$project-"{cpu,cuda} "trainlab-"{tensorboard,head,serve,share}":$project" 2>/dev/null || true
}
