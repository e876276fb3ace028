# shellcheck shell=bash disable=SC2154
# Images by way of a registry: `make publish` pushes them, and `make up` with IMAGE_REGISTRY in .env pulls them in the
# place of building. Their names there depend on the project and its version, never on the folder; whether one is for
# the stack at hand tells its label, a digest of what it was made from. Sourced by stack/verb.
inputs_label=trainlab.inputs
processors_published="amd64 arm64" # docker-bake.hcl has a target for each

image_inputs() { # image_inputs SERVICE: a digest of what its image is made from, but for code that is mounted
  local file files=("$1") chosen=""
  while IFS= read -r file; do
    # a file of the user's counts where it says how to build; another mount, say, needs no other image
    case $file in docker-compose.yml | docker-compose.gpu.yml) ;; docker-compose.share.yml) [[ $1 == share ]] || continue ;; *) grep -qs 'build:' "$file" || continue ;; esac
    files+=("$file")
  done < <(build_files | tr : '\n')
  if [[ $1 == jupyter ]]; then
    files+=(pyproject.toml) chosen=$(tracker_locks)$(torch_extras)$(setting TORCH_GPU_BUILD "")
    [[ ! -e requirements.txt ]] || files+=(requirements.txt)
  fi
  if [[ $1 == serve ]]; then # whose code is in it
    for file in src/trainlab jupyter/wheels/trainlab-*.whl; do [[ ! -e $file ]] || files+=("$file"); done
  fi
  {
    echo "$(setting BASE_IMAGE debian:bookworm-slim) $chosen"
    find "${files[@]}" -type f ! -name 'torch-*.whl' ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 cat
  } | { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; } | cut -d ' ' -f 1
}

build_files() { compose_files "$(in_file COMPOSE_FILE)"; }

note_built() { # the images of this folder are made from what lies here now
  (umask 077 && mkdir -p .stack)
  { image_inputs jupyter && image_inputs tensorboard; } >".stack/built-$gpu"
  give_away ".stack/built-$gpu"
}

built() { # both images are there, and made from what lies here
  [[ $(cat ".stack/built-$gpu" 2>/dev/null) == "$(image_inputs jupyter && image_inputs tensorboard)" ]] &&
    docker image inspect "${images[@]}" >/dev/null 2>&1
}

torch_build() { if ((gpu)); then echo cuda; else echo cpu; fi; }

repository() { # repository REGISTRY SERVICE
  echo "$1/$(of_pyproject project name | LC_ALL=C tr '[:upper:]' '[:lower:]')-$2"
}

published_tag() { # published_tag SERVICE
  echo "$(of_pyproject project version)$([[ $1 != jupyter ]] || echo "-$(torch_build)")"
}

check_registry() { # check_registry VARIABLE VALUE
  [[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*$ ]] ||
    fail "$1=$2 is not where images lie: host/path or host:port/path, without https:// and without a tag"
}

pull_images() { # pull_images SERVICE...: takes all of these from IMAGE_REGISTRY, or fails with a line; without one if none is set
  local registry service source said progress=/dev/null sources=()
  registry=$(setting IMAGE_REGISTRY "")
  [[ -n $registry ]] || return 1
  check_registry IMAGE_REGISTRY "$registry"
  [[ ! -t 1 ]] || progress=/dev/stdout
  for service; do
    source=$(repository "$registry" "$service"):$(published_tag "$service")
    echo "pulling $source"
    if ! { said=$(docker pull "$source" 2>&1 >&3); } 3>"$progress"; then # standard error alone is kept
      echo "$source was not pulled: ${said##*$'\n'}. Building in its place"
      return 1
    fi
    sources+=("$source")
    if [[ $(docker image inspect --format "{{index .Config.Labels \"$inputs_label\"}}" "$source") != $(image_inputs "$service") ]]
    then
      docker image rm "${sources[@]}" >/dev/null 2>&1 || true
      echo "$source was made from other files than this folder's (Dockerfile, locks or settings for building). Building in its place"
      return 1
    fi
  done
  for service; do docker tag "$(repository "$registry" "$service"):$(published_tag "$service")" "$(image_of "$service")"; done
  docker image rm "${sources[@]}" >/dev/null # the names alone: `make clean` removes the images by ours
}

check_publishing() { # check_publishing [SERVICE...]: refuses what would fail after minutes of building
  local each
  [[ $engine == docker && $podman == 0 ]] || fail "images are built and pushed by Docker, and here: $why. Nothing was pushed."
  [[ -n ${REGISTRY:-} ]] || fail "where to? For example: make publish REGISTRY=ghcr.io/somebody, after: docker login ghcr.io
       Nothing was built or pushed."
  check_registry REGISTRY "$REGISTRY"
  docker buildx version >/dev/null 2>&1 ||
    fail "Docker has no buildx plugin (Debian and Ubuntu: docker-buildx, or Docker's docker-buildx-plugin). Nothing was pushed."
  for each in name version; do
    [[ -n $(of_pyproject project "$each") ]] || fail "pyproject.toml has no $each = \"...\" below [project], which names the images"
  done
  for each; do
    [[ $each =~ ^(jupyter|tensorboard|serve)$ ]] || fail "there is no image '$each': jupyter, tensorboard, serve, or none for all"
  done
  for each in $(published_processors); do
    [[ " $processors_published " == *" $each "* ]] ||
      fail "PLATFORMS=${PLATFORMS:-} is unknown; allowed: linux/amd64, linux/arm64, or both with a comma. Nothing was pushed."
  done
}

published_processors() { # the words of PLATFORMS without linux/, or the engine's own processor
  local platforms=${PLATFORMS:-$(docker version --format '{{.Server.Arch}}')}
  tr , ' ' <<<"${platforms//linux\//}"
}

publish() { # publish [SERVICE...]: builds all images, or these, and pushes each with its bill of materials
  local name value service processor file services=("$@") targets=() pushed=() options=()
  ((${#services[@]})) || services=(jupyter tensorboard serve)
  check_disk "$(engine_folder)" "$gib" "Building the images"
  ((gpu)) || fetch_torch
  for name in BASE_IMAGE TRACKERS TORCH_EXTRAS TORCH_GPU_BUILD PIP_INDEX_URL TORCH_INDEX TORCH_GPU_INDEX; do
    value=$(setting "$name" "")
    [[ -z $value ]] || export "$name=$value" # secrets are taken from the environment, which .env is no part of
  done
  describe
  while IFS= read -r file; do options+=(--file "$file"); done < <(build_files | tr : '\n')
  for service in "${services[@]}"; do
    for processor in $(published_processors); do
      targets+=("$service-$processor" "$service-$processor-bill")
      pushed+=("$(repository "$REGISTRY" "$service"):$(published_tag "$service")-$processor"{,.sbom})
    done
  done
  echo "building and pushing ${targets[*]}"
  docker buildx bake "${options[@]}" --file docker-bake.hcl --push "${targets[@]}" ||
    fail "not everything was pushed: see above. Where the registry refused: docker login ${REGISTRY%%/*}"
  for service in "${services[@]}"; do join "$service"; done
  docker image rm "${pushed[@]}" >/dev/null 2>&1 || true # what a builder without a store of its own leaves here
  echo "Those who have this version of the project pull with IMAGE_REGISTRY=$REGISTRY in .env."
}

describe() { # exports what docker-bake.hcl writes into labels
  NAME=$(of_pyproject project name | LC_ALL=C tr '[:upper:]' '[:lower:]') VERSION=$(of_pyproject project version)
  LICENSE=$(of_pyproject project license) BUILD=$(torch_build) REVISION=unknown SOURCE="" ATTEST=""
  JUPYTER_INPUTS=$(image_inputs jupyter) TENSORBOARD_INPUTS=$(image_inputs tensorboard) SERVE_INPUTS=$(image_inputs serve)
  # a folder that merely lies in somebody's repository has no commit of its own
  if [[ $(git rev-parse --show-toplevel 2>/dev/null) -ef . ]] && REVISION=$(git rev-parse --verify HEAD 2>/dev/null); then
    SOURCE=$(git config --get remote.origin.url | sed 's#//[^/@]*@#//#') || true # never a password in a label
    if [[ -n $(git status --porcelain) ]]; then
      REVISION+=-dirty
      echo "the working tree differs from its commit: the label says ${REVISION}"
    fi
  else
    REVISION=unknown
    echo "git names no commit here: the label says 'unknown'"
  fi
  if [[ $(docker buildx inspect 2>/dev/null | sed -n 's/^Driver: *//p' | head -n 1) != docker || $docker_info == *io.containerd.snapshotter* ]]
  then ATTEST=type=provenance,mode=min
  else echo "provenance: in the labels alone; this builder attaches no attestation (one that does: docker buildx create --use)"; fi
  export REGISTRY NAME VERSION LICENSE BUILD REVISION SOURCE ATTEST JUPYTER_INPUTS TENSORBOARD_INPUTS SERVE_INPUTS
}

join() { # join SERVICE: one name for all processors, also for one that another machine has pushed from the same files
  local processor name parts=() inputs
  name=$(repository "$REGISTRY" "$1"):$(published_tag "$1")
  inputs=$(image_inputs "$1")
  for processor in $processors_published; do
    if [[ " $(published_processors) " == *" $processor "* ||
      $(docker buildx imagetools inspect --format '{{json .Image}}' "$name-$processor" 2>/dev/null) == *"$inputs"* ]]
    then parts+=("$name-$processor"); fi
  done
  docker buildx imagetools create --tag "$name" "${parts[@]}" >/dev/null 2>&1 ||
    fail "$name could not be made of ${parts[*]}, which were pushed"
  echo "pushed $name (${parts[*]##*-}) and its bill of materials, ${parts[0]##*/}.sbom"
}
