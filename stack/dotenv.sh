# shellcheck shell=bash disable=SC2016,SC2034,SC2154
# Reads .env as Compose does: blanks around `=`, `KEY: value`, `export`, quotes with escapes, `${NAME:-default}`,
# values over several lines, a byte-order mark. The few forms that are not read here are refused with their line.
# tests/stack/test_dotenv.py holds this against Compose itself. Sourced by stack/settings.sh.

read_env() { # sets dotenv_NAME to each value, and dotenvline_NAME to the line where it stands
  local LC_ALL=C text="" line=1 key ends value # C: what a letter is does not depend on the machine
  local blank=$' \t\v\f\r' newline=$'\n' quote=\'
  # the blanks beyond ASCII that Compose takes off a value: U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028, ...
  local wide=$'\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80'
  # shellcheck disable=SC2086 # names of variables
  unset ${!dotenv_@} ${!dotenvline_@}
  dotenvread=1
  [[ ! -r .env ]] || text=$(cat .env && echo .)
  text=${text%.}
  text=${text#$'\xef\xbb\xbf'}
  while skip_to_statement && [[ -n $text ]]; do
    read_key
    [[ $ends != "$newline" ]] || continue # `KEY` alone stands for what the environment has
    read_value
    if [[ $key =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then printf -v "dotenv_$key" %s "$value"; fi
  done
}

refuse_line() { fail "line $line of .env $1. Expected: NAME=value, as .env.example has it. Nothing was done."; }

skip_to_statement() { # drops blank lines and comments
  local pattern="^([$blank$newline]+|#[^$newline]*)"
  while [[ $text =~ $pattern ]]; do drop "${BASH_REMATCH[0]}"; done
}

drop() { # drop PART: takes it off the text, and counts its lines
  local lines=${1//[!$newline]/}
  line=$((line + ${#lines}))
  text=${text:${#1}}
}

read_key() { # sets key, and ends to the character after it
  local exported="^export[$blank]+" pattern="^([]A-Za-z0-9_.[-]+)[$blank]*([=:$newline])" whole
  if [[ $text =~ $exported ]]; then drop "${BASH_REMATCH[0]}"; fi
  [[ $text =~ $pattern ]] || refuse_line "does not begin with a name and ="
  key=${BASH_REMATCH[1]} ends=${BASH_REMATCH[2]} whole=${BASH_REMATCH[0]}
  if [[ $key =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then printf -v "dotenvline_$key" %s "$line"; fi
  drop "$whole"
}

read_value() { # sets value to what follows
  local single="^'(([^'\\]|\\\\.)*)'" double="^\"(([^\"\\]|\\\\.)*)\"" blanks="^[$blank]+" whole
  if [[ $text =~ $blanks ]]; then drop "${BASH_REMATCH[0]}"; fi
  if [[ $text =~ $single ]]; then
    whole=${BASH_REMATCH[0]} value=${BASH_REMATCH[1]//\\$quote/$quote}
  elif [[ $text =~ $double ]]; then
    whole=${BASH_REMATCH[0]}
    expand "${BASH_REMATCH[1]}" escapes
  else
    [[ $text != [\'\"]* ]] || refuse_line "has a quote that does not end"
    whole=${text%%"$newline"*}
    value=${whole%% #*}
    while [[ $value == *[$blank] ]]; do value=${value%?}; done
    [[ ! $value =~ ^($wide) && ! $value =~ ($wide)$ ]] || refuse_line "has an unusual blank around its value"
    expand "$value"
  fi
  drop "$whole"
}

expand() { # expand TEXT [escapes]: sets value to it, with variables put in and, in double quotes, escapes replaced
  local rest=$1 plain='^\$([A-Za-z_][A-Za-z0-9_]*)' braces='^\$\{([A-Za-z_][A-Za-z0-9_]*)(:?[-+])?([^$}\]*)\}' part
  value=""
  while [[ $rest == *[\\\$]* ]]; do
    part=${rest%%[\\\$]*}
    value+=$part rest=${rest:${#part}}
    if [[ $rest == \\* ]]; then
      if [[ -n ${2:-} ]]; then escape "${rest:1:1}"; else value+=\\; fi
      if [[ -n ${2:-} ]]; then rest=${rest:2}; else rest=${rest:1}; fi
    elif [[ $rest == \$\$* ]]; then
      value+=\$ rest=${rest:2}
    elif [[ $rest =~ $plain || $rest =~ $braces ]]; then
      part=${BASH_REMATCH[0]}
      put_in "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]:-}" "${BASH_REMATCH[3]:-}"
      rest=${rest:${#part}}
    else
      [[ $rest != \$\{* ]] || refuse_line "has a form of \${...} that is not read here"
      value+=\$ rest=${rest:1}
    fi
  done
  value+=$rest
}

escape() { # escape CHARACTER: adds what it means after a backslash
  case $1 in
    [abfnrtv]) printf -v part %b "\\$1" && value+=$part ;;
    [\"\\\$]) value+=$1 ;;
    0) refuse_line 'has \0' ;;
    *) value+=\\$1 ;;
  esac
}

put_in() { # put_in NAME OPERATOR TEXT: adds a variable's value, the environment's before .env's
  local name=dotenv_$1 known="" is_known=""
  if known=$(printenv "$1"); then is_known=1
  elif [[ -n ${!name+set} ]]; then known=${!name} is_known=1; fi
  [[ $2 != :* || -n $known ]] || is_known=""
  case $2 in
    *-) if [[ -n $is_known ]]; then value+=$known; else value+=$3; fi ;;
    *+) [[ -z $is_known ]] || value+=$3 ;;
    *) [[ -z $3 ]] || refuse_line "has a form of \${...} that is not read here"; value+=$known ;;
  esac
}
