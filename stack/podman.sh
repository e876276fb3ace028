# shellcheck shell=bash disable=SC2154
# ENGINE=podman: Podman without root, spoken to by Docker's own client and Compose over its socket. Three things are
# not Docker's: it builds with `podman build`, checks health only where systemd runs its timers, and maps users
# (docker-compose.podman.yml). Sourced by stack/verb.
podman_socket=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/podman/podman.sock

use_podman() { # points docker at Podman, or fails with what is in the way
  local problem
  problem=$(podman_problem)
  [[ -z $problem ]] || fail "ENGINE=podman, but $problem"
  export DOCKER_HOST=unix://$podman_socket
  podman=1
}

podman_problem() { # prints what keeps Podman from running the services, and what helps; or nothing
  local said
  if ! command -v podman >/dev/null; then echo "Podman is not installed: sudo apt install podman"
  elif [[ $(id -u) == 0 ]]; then echo "it is for a user: Podman as root cannot map the folders' owner. Start make as yourself, without sudo"
  elif ! command -v docker >/dev/null || ! docker compose version >/dev/null 2>&1; then
    echo "the commands docker and docker compose, which speak with it, are missing: install the client and the Compose plugin, no Docker engine"
  elif ! command -v newuidmap >/dev/null; then echo "newuidmap is missing: sudo apt install uidmap"
  elif (($(podman unshare cat /proc/self/uid_map 2>/dev/null | wc -l) < 2)); then
    echo "user $(id -un) has no subordinate ids: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
  elif [[ -e /dev/net/tun && ! -w /dev/net/tun ]]; then echo "/dev/net/tun, which its network needs, cannot be opened: sudo chmod 666 /dev/net/tun"
  elif ! said=$(podman info --format '{{.Store.GraphDriverName}}' 2>&1); then echo "\`podman info\` fails: ${said##*$'\n'}"
  elif grep -q vfs <<<"$said"; then
    echo "it keeps a whole copy of each layer (its storage is vfs), many times the size of these images:
       sudo apt install fuse-overlayfs, then \`podman system reset\`, which deletes the images and containers of this user"
  elif ! answers_podman; then
    echo "its socket $podman_socket does not answer: systemctl --user enable --now podman.socket
       (without systemd: podman system service --time 0 &)"
  elif ! has_init; then echo "catatonit, which reaps processes in its containers, is missing: sudo apt install catatonit"
  fi
}

answers_podman() { DOCKER_HOST=unix://$podman_socket docker version >/dev/null 2>&1; }

has_init() { # where distributions put it
  local path
  for path in /usr/libexec/podman/catatonit /usr/libexec/catatonit /usr/lib/podman/catatonit; do [[ ! -x $path ]] || return 0; done
  command -v catatonit >/dev/null
}

podman_build() { # podman_build IMAGE...: with Compose's arguments; its own build needs BuildKit, which Podman is not
  local service image arguments
  export PIP_INDEX_URL TORCH_INDEX
  PIP_INDEX_URL=$(setting PIP_INDEX_URL "")
  if ((gpu)); then TORCH_INDEX=$(setting TORCH_GPU_INDEX ""); else TORCH_INDEX=$(setting TORCH_INDEX ""); fi
  for image; do
    service=${image%%:*} service=${service#trainlab-}
    mapfile -t arguments < <(build_arguments "$service")
    # two locks on caches in one step are not both let go of by Podman 4.3 (buildah#4342): the next step would wait for
    # ever. It runs one step at a time, and needs none
    sed 's/,sharing=locked//g' "$service/Dockerfile" | podman build --format docker --file - --tag "docker.io/library/$image" \
      --secret id=pip_index_url,env=PIP_INDEX_URL --secret id=torch_index,env=TORCH_INDEX "${arguments[@]}" . || return
  done
}

build_arguments() { # build_arguments SERVICE: prints --build-arg=NAME=VALUE for each of Compose's
  COMPOSE_FILE=$(compose_files "$(in_file COMPOSE_FILE)") docker compose config "$1" | awk '
    /^      args:/ { on = 1; next }
    /^      [^ ]/ { on = 0 }
    on { sub(/^ +/, ""); sub(/: */, "="); gsub(/"/, ""); print "--build-arg=" $0 }'
}

podman_up() { # as `docker compose up --wait`, which would wait for timers of systemd
  docker compose up --detach --no-build && wait_for_service jupyter && wait_for_service tensorboard
}

podman_state() { # podman_state SERVICE: healthy, or starting, or nothing where it is down
  local container
  container=$(all_profiles ps --quiet --status running "$1" 2>/dev/null) || true
  [[ -n $container ]] || return 0
  if podman healthcheck run "$container" >/dev/null 2>&1; then echo healthy; else echo starting; fi
}
