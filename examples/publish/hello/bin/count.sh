# Answers how many characters the greeting has.
set -eu
printf '{ "summary": "The greeting has %d characters", "characters": %d }\n' \
  "${#XP_CFG_GREETING}" "${#XP_CFG_GREETING}" >"$XP_RESULT_FILE"
