# shellcheck shell=bash disable=SC2154
# Which containers, volume and images are this folder's: the ones with its project name. Compose itself goes by the
# folder's last name, which two clones may share, and which may hold no letter that Compose takes; make goes by the
# whole path, and writes the name into .env, for plain `docker compose`. Sourced by stack/verb; for Docker alone.
label=com.docker.compose

choose_project() { # sets project for us and for every docker compose below us; refuses one that is another folder's
  named_by_shell=${COMPOSE_PROJECT_NAME:+1}
  project=$(setting COMPOSE_PROJECT_NAME "")
  if [[ -z $project ]]; then project=$(name_used_before)
  elif is_copy; then project=""; fi
  [[ -n $project ]] || project=$(name_of_path)
  check_owner
  export COMPOSE_PROJECT_NAME=$project
}

name_of_path() { # prints the folder's last name as far as Compose takes it, and a digest of the whole path
  local readable
  readable=$(name_of_folder)
  [[ -n $readable ]] || readable=trainlab
  printf '%s-%08x\n' "${readable:0:24}" "$(printf %s "$(pwd -P)" | cksum | cut -d ' ' -f 1)"
}

name_of_folder() { # prints the project name that Compose makes of the folder's last name; it may be empty
  printf %s "${PWD##*/}" | LC_ALL=C tr "[:upper:]" "[:lower:]" | LC_ALL=C tr -cd a-z0-9_- | sed 's/^[_-]*//'
}

name_used_before() { # prints the name that this folder's containers or volume have already, if there are any
  local name folder
  for folder in "$PWD" "$(pwd -P)"; do
    name=$(docker ps --all --filter "label=$label.project.working_dir=$folder" --filter "label=$label.service=jupyter" \
      --format "{{.Label \"$label.project\"}}" | head -n 1)
    [[ -z $name ]] || { echo "$name" && return; }
  done
  name=$(name_of_folder)
  if [[ -n $name && -z $(owners "$name" | tr -d '\0') ]] && was_used && docker volume inspect "${name}_home" >/dev/null 2>&1
  then echo "$name"; fi
}

was_used() { [[ -e .env || -n $(find logs -mindepth 1 -maxdepth 1 ! -name .gitignore -print -quit) ]]; }

owners() { # owners NAME: prints the folders whose containers have this project name, each before a NUL
  docker ps --all --filter "label=$label.project=$1" --format "{{.Label \"$label.project.working_dir\"}}{{\"\\x00\"}}"
}

check_owner() { # a folder that is gone was moved here: its containers are ours
  local folder
  while IFS= read -r -d '' folder; do
    folder=${folder#$'\n'}
    [[ -z $folder || $folder -ef . || ! -d $folder ]] ||
      fail "the project name $project belongs to containers of $folder, which would be stopped and replaced. Nothing was stopped.
       Give this folder a name of its own: COMPOSE_PROJECT_NAME=$(name_of_path) in .env"
  done < <(owners "$project")
}

is_copy() { # .env came with the name from another folder, and that one still goes by it
  local folder
  folder=$(named_folder)
  [[ -z $named_by_shell && -n $folder && ! $folder -ef . && -e $folder/.env ]] || return 1
  [[ ! -r $folder/.env ]] || grep -q "COMPOSE_PROJECT_NAME *= *['\"]*$project" "$folder/.env"
}

named_folder() { # prints the folder for which make wrote the name in .env
  [[ ! -r .env ]] || tr -d '\r' <.env | sed -n 's/^# COMPOSE_PROJECT_NAME is of the folder //p' | tail -n 1
}

project_lines() {
  echo "# COMPOSE_PROJECT_NAME is of the folder $(pwd -P)"
  echo "COMPOSE_PROJECT_NAME=$project"
}

keep_project() { # plain `docker compose` then agrees with make
  local folder
  folder=$(named_folder)
  if [[ -n $(in_file COMPOSE_PROJECT_NAME) ]]; then
    [[ -z $named_by_shell && -n $folder && ! $folder -ef . ]] || return 0 # else the folder was moved, or is a copy
  fi
  write_env with_project
  echo "set COMPOSE_PROJECT_NAME=$project in .env: so this folder's containers, volume and images are called"
}

with_project() { # prints .env with the name of this folder
  grep -v -e '^# COMPOSE_PROJECT_NAME is of the folder ' -e '^COMPOSE_PROJECT_NAME=' .env || true
  project_lines
}
