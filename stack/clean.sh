# shellcheck shell=bash
# `make clean`: what was built goes after one question, what is the user's after another. Sourced by stack/verb.
built=(.venv .stack .pytest_cache .ruff_cache .mypy_cache src/trainlab.egg-info data/tokens)

clean() {
  local users path size
  echo "built:  $(present "${built[@]}")"
  [[ $engine != docker ]] || echo "        the images trainlab-*:$project*, and the volumes with JupyterLab's settings and the head's sweeps"
  if agreed "Stop the stack and delete these?"; then
    alone up engine_clean
    rm -rf "${built[@]}"
  fi
  users=()
  while IFS= read -r -d '' path; do users+=("$path"); done < <(users_files)
  ((${#users[@]})) || return 0
  echo "yours:"
  for path in "${users[@]}"; do
    read -r size _ < <(du -sh -- "$path")
    printf '        %-7s %s\n' "$size" "${path//[[:cntrl:]]/?}"
  done
  if agreed "Delete these too? They cannot be made again."; then printf '%s\0' "${users[@]}" | xargs -0 rm -rf --; fi
}

present() { # present PATH...: those that exist, or a word that says none does
  local path found=""
  for path; do [[ ! -e $path ]] || found+="$path "; done
  echo "${found:-nothing in this folder}"
}

users_files() { # prints runs, downloaded data, exported models and .env, each before a NUL; never what git has shipped
  find logs -mindepth 1 -maxdepth 1 ! -name .gitignore -print0
  find data -mindepth 1 -maxdepth 1 ! -name sample ! -name tokens -print0
  find models -mindepth 1 -maxdepth 1 ! -name .gitignore -print0
  [[ ! -e .env ]] || printf '.env\0'
}

agreed() { # agreed QUESTION: YES=1 answers yes; where nobody can be asked the answer is no
  local answer=no
  if [[ ${YES:-} == 1 ]]; then return 0; fi
  [[ -t 0 ]] || { echo "nothing was deleted: nobody to ask here; YES=1 make clean answers yes" && return 1; }
  read -r -p "$1 [y/N] " answer || true
  [[ $answer == [yY]* ]] || { echo "kept" && return 1; }
}
