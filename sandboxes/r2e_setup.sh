#!/bin/bash
# Turn the image of an R2E-Gym or SWE-bench task into what an agent may see. Runs once per image as root, without
# network; its result is kept. May run twice. In front of this text the task sets:
#
#   AEM_R2E     1 for R2E-Gym: link its environment, take the hidden tests away. Else only history and caches go.
#   AEM_SEAL    key (hex) under which what was in /r2e_tests is kept for the grader, unreadable for everybody else
#   AEM_ROOT    where / is (tests), AEM_REPO the repository in it (/testbed), AEM_HOME root's home (/root)
#
# The initial tree of these images is dirty on purpose: nothing here resets, stashes or checks out.
set -euo pipefail
export LC_ALL=C
umask 022
root=${AEM_ROOT:-}
repo=$root${AEM_REPO:-/testbed}
home=$root${AEM_HOME:-/root}
state=$root/var/lib/aem-swe
hidden=(r2e_tests run_tests.sh expected_test_output.json execution_result.json parsed_commit.json syn_issue.json
    modified_files.json modified_entities.json)

fail() {
    echo "r2e_setup: $*" >&2
    exit 1
}

[ -d "$repo" ] || fail "the image has no folder $repo"
command -v git > /dev/null || fail "the image has no git"
cd "$repo"
mkdir -p "$state"
scratch=$(mktemp -d -p "$state") # not /tmp, which may be another file system: git renames what it packs into its place
trap 'rm -rf "$scratch"' EXIT

# --- R2E-Gym: the environment where its agents look for it, as its own runtime links it ---
link_environment() {
    [ -d .venv ] || return 0
    mkdir -p "$home/.local/bin"
    if [ -L "$home/.venv" ] || [ ! -e "$home/.venv" ]; then ln -sfn "$repo/.venv" "$home/.venv"; fi
    ln -sf "$repo/.venv/bin/python" "$home/.local/bin/python"
    ln -sf "$repo/.venv/bin/python" "$home/.local/bin/python3"
    find "$repo/.venv/bin" -type f -executable -exec ln -sf -t "$home/.local/bin" {} +
}

# Some images hold more below /r2e_tests than their rows tell (Pillow's helper.py, Pyramid's fixtures). All of it is kept
# as one archive that only the holder of the key can read: XOR with SHAKE-256 of the key, which is used for nothing else.
seal_tests() {
    local names=() from
    for from in "$root/" "$repo"; do
        [ -e "$from/r2e_tests" ] && [ ! -L "$from/r2e_tests" ] && names+=(-C "$from" r2e_tests) && break
    done
    for from in "$repo" "$root/"; do
        [ -f "$from/run_tests.sh" ] && names+=(-C "$from" run_tests.sh) && break
    done
    [ ${#names[@]} -gt 0 ] || return 0
    tar -cf "$scratch/tests.tar" --exclude='*.pyc' --exclude=__pycache__ "${names[@]}"
    local python=.venv/bin/python
    [ -x "$python" ] || python=$(command -v python3) || fail "the image has no Python to seal the hidden tests with"
    mkdir -p "$state"
    "$python" -I -c '
import hashlib, sys
data = open(sys.argv[1], "rb").read()
stream = hashlib.shake_256(bytes.fromhex(sys.argv[3])).digest(len(data))
sealed = int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")
open(sys.argv[2], "wb").write(sealed.to_bytes(len(data), "big"))
' "$scratch/tests.tar" "$state/r2e_tests.sealed" "$AEM_SEAL"
}

remove_hidden() {
    local folder name
    for folder in "$root" "$repo" "$home"; do
        for name in "${hidden[@]}"; do rm -rf -- "${folder:?}/$name"; done
    done
}

if [ -n "${AEM_R2E:-}" ]; then
    link_environment
    [ -z "${AEM_SEAL:-}" ] || seal_tests
    root=${root:-/.} remove_hidden
fi

# --- caches: compiled tests, names of tests that failed ---
find . \( -path ./.venv -o -path ./.git \) -prune -o \
    \( -name __pycache__ -o -name .pytest_cache -o -name '*.pyc' -o -name '*.pyo' \) -prune -print0 | xargs -0 -r rm -rf --

# --- history: one commit of the tree as it is, in a repository that never held another object ---
mkdir "$scratch/home"
printf '[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[core]\n\tfsmonitor = false\n\tsplitIndex = false\n[user]\n\tname = baseline\n\temail = baseline@localhost\n' \
    > "$scratch/home/.gitconfig"
unset ${!GIT_*}
export HOME=$scratch/home XDG_CONFIG_HOME=$scratch/home GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_DATE=2000-01-01T00:00:00Z GIT_COMMITTER_DATE=2000-01-01T00:00:00Z

find . -mindepth 2 -name .git -prune -print0 | xargs -0 -r rm -rf --
if [ -e .git ]; then
    [ "$(git rev-parse --show-toplevel)" = "$(pwd -P)" ] || fail "$repo/.git is no repository of $repo"
    common=$(cd "$(git rev-parse --git-common-dir)" && pwd -P)
    [ "$common" = "$(pwd -P)/.git" ] || fail "the history of $repo is kept elsewhere: $common"
    [ ! -s .git/objects/info/alternates ] || fail "the history of $repo is shared with $(cat .git/objects/info/alternates)"
else
    git init -q .
fi
rm -f .git/index.lock
mkdir -p .git/info
printf '/.venv\n__pycache__/\n*.py[co]\n.pytest_cache/\n' > .git/info/exclude
if [ -e .git/index ]; then
    # what was a submodule becomes ordinary files
    { git ls-files -s -z | grep -z '^160000' || :; } | cut -z -f 2- | git update-index -z --force-remove --stdin
fi
git add -A .
tree=$(git write-tree)
commit=$(git commit-tree "$tree" -m baseline < /dev/null)

fresh=$scratch/git
mkdir -p "$fresh/objects/pack" "$fresh/objects/info" "$fresh/refs/heads" "$fresh/refs/tags" "$fresh/info"
echo "$commit" | git pack-objects -q --revs "$fresh/objects/pack/pack" > /dev/null
echo "$commit" > "$fresh/refs/heads/main"
echo 'ref: refs/heads/main' > "$fresh/HEAD"
printf '[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n' > "$fresh/config"
cp .git/info/exclude "$fresh/info/exclude"
cp -p .git/index "$fresh/index"
rm -rf .git
cp -a "$fresh" .git

[ "$(git rev-list --all --count)" = 1 ] || fail "the history of $repo has more than one commit"
left=$(git status --porcelain | head -5)
[ -z "$left" ] || fail "the tree of $repo differs from its commit: $left"
