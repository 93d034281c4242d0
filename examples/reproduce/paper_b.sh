# shellcheck shell=bash
# Rows of paper B's tables, for the scripts of its data sets; to be sourced after common.sh.
#
# Settings are those of --preset paper-b (SGD at 0.01, halved every 20 epochs; resize 256, crop 224,
# flip; K = M = 5). What the paper does not print (margin, momentum, epochs) is patchknn's. Runs
# see no test image and keep their last epoch. Neighbours are ranked by L2 over all training images.

read -ra seeds <<<"${SEEDS:-0 1 2}"
read -ra train_options <<<"${TRAIN_OPTIONS:-}" # more words for every `patchknn train`
plain=${BACKBONE:-resnet50}
votes=(1 3 5 7 9) # Kp of Table S4

# of_data NAME: where its manifests are, which prepare.py wrote.
# shellcheck disable=SC2154
of_data() { train_csv=$out/data/$1/train.csv test_csv=$out/data/$1/test.csv; }

# fit RUN SEED OPTIONS...: train by the preset, then archive the training images.
fit() {
  local run=$1 seed=$2
  shift 2
  train "$run" "$train_csv" --preset paper-b --split none --seed "$seed" "$@" "${train_options[@]}"
  embed "$run" "$train_csv"
}

# judge_votes RUN KP...: one evaluation for each number of neighbours.
judge_votes() {
  local run=$1 k
  shift
  for k in "$@"; do judge_exactly "$run" "k$k" "$test_csv" --k "$k"; done
}

# table_2 NAME METHOD SEED OPTIONS...: one row; OPTIONS are the data set's own.
table_2() {
  local name=$1 method=$2 seed=$3 run=$out/runs/$1/$2/seed$3 network
  shift 3
  of_data "$name"
  mapfile -t network < <(backbone "${method#knn-}")
  case $method in
    knn-*) fit "$run" "$seed" "$@" "${network[@]}" --loss none; judge_votes "$run" 1 5; return ;;
  esac
  mapfile -t network < <(backbone "$plain")
  # shellcheck disable=SC2154 # common.sh has it
  case $method in
    triplet) fit "$run" "$seed" "$@" "${network[@]}" "${traditional[@]}" ;;
    deep-knn) fit "$run" "$seed" "$@" "${network[@]}" --loss deep-knn ;;
    # Batches have as many images of every class, which weighs the classes as the paper's weights
    # do; --class-weights balanced would weigh them twice.
    weighted-ce) fit "$run" "$seed" "$@" "${network[@]}" --loss cross-entropy ;;
    deep-knn-star)
      table_2 "$name" weighted-ce "$seed" "$@"
      fit "$run" "$seed" "$@" --from "$out/runs/$name/weighted-ce/seed$seed/encoder" --loss deep-knn ;;
    *) say "METHODS: $method is unknown."; return 2 ;;
  esac
  case $method in
    deep-knn) judge_votes "$run" "${votes[@]}" ;;
    *) judge_votes "$run" 1 5 ;;
  esac
  # The network's own classes are the row Weighted-CE.
  if [ "$method" = weighted-ce ]; then
    results "$run" network patchknn query "$run/archive" "$test_csv" --k 1 --format ndjson
  fi
}

# all_of_table_2 NAME OPTIONS...: every method and seed.
all_of_table_2() {
  local name=$1 methods method seed
  shift
  read -ra methods <<<"${METHODS:-knn-vgg19 knn-resnet50 triplet deep-knn weighted-ce deep-knn-star}"
  for seed in "${seeds[@]}"; do
    for method in "${methods[@]}"; do
      # deep kNN* goes on from weighted-ce of its seed.
      [ "$method" = deep-knn-star ] || start table_2 "$name" "$method" "$seed" "$@"
    done
  done
  all_done
  for seed in "${seeds[@]}"; do
    [[ " ${methods[*]} " != *" deep-knn-star "* ]] || start table_2 "$name" deep-knn-star "$seed" "$@"
  done
  all_done
}
