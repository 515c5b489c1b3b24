#!/bin/sh
# Trains the shipped model from nothing: sh configs/bd_diff_tiny/recipe.sh PHOTOS BLURRY
#
# PHOTOS: sharp photographs, with val.txt, the names of those never trained on. BLURRY: real blurry ones. The model will
# be in runs/model, after eleven hours or more of two cores. Run again after a stop, it goes on. REHEARSE=1 takes two
# steps of everything, into runs/rehearsal, and tells in minutes whether it would go through.
set -eu
photos=$1 blurry=$2
python=${PYTHON:-python}
configs=configs/bd_diff_tiny
runs=runs
short= few=
if [ "${REHEARSE:-}" ]; then
  runs=runs/rehearsal
  short="run.steps=2 run.batch_size=2 run.log_every=1 compile=false data.validation_photographs=2"
  few="count=8"
fi

each() { "$python" -m torch.distributed.run --nproc-per-node "${PROCESSES:-2}" "$@"; }

# joint CONFIG START NAME, and settings that replace the file's: a training from runs/START into runs/NAME.
joint() {
  config=$1 start=$2 name=$3
  shift 3
  echo "== $name"
  [ -d "$runs/$name/pipeline" ] && return # it was trained before a stop
  resume=
  [ -d "$runs/$name" ] && resume=--resume
  each train/joint.py --config "$configs/$config.yaml" data.sharp="$photos" data.exclude="$photos/val.txt" \
    run.folder="$runs/$name" ${start:+start_from="$runs/$start"} "$@" $short $resume
}

# bank CONFIG NAME, and settings: photographs blurred, and kernels searched in them, into runs/NAME.
bank() {
  config=$1 name=$2
  shift 2
  echo "== $name"
  each train/kernel_bank.py --config "$configs/$config.yaml" sharp="$photos" exclude="$photos/val.txt" \
    folder="$runs/$name" "$@" $few
}

# average FIRST SECOND SHARE NAME, and options: runs/NAME of two models, SHARE of the second.
average() {
  first=$1 second=$2 share=$3 name=$4
  shift 4
  echo "== $name"
  "$python" train/average.py "$runs/$first" "$runs/$second" --share "$share" --out "$runs/$name" "$@"
}

# half MODEL NAME, and what else to do: runs/NAME in half precision.
half() {
  "$python" -c "import torch; from bd_diff import BDDiffPipeline
pipe = BDDiffPipeline.from_pretrained('$runs/$1')
${3:-}
pipe.to(torch.float16).save_pretrained('$runs/$2')"
}

target="data.target=$blurry"
restorer="--networks unet structure_qformer"

# Tokens that carry kernels; then more of those that are hard to carry.
(
  PROCESSES=1
  joint tokens "" tokens1
  joint tokens tokens1/pipeline tokens run.seed=2 optimizer.lr=1.0e-3 \
    "families={delta: 0.04, gaussian: 0.08, line: 0.18, shake: 0.45, disc: 0.06, box: 0.03, hand_shake: 0.08, \
ghost: 0.05, astigmatism: 0.03}"
)
# Blur in display values, with little noise.
joint warmup tokens/pipeline warmup
bank kernel_bank kernel_bank
known="data.bank=$runs/kernel_bank"
joint joint warmup/pipeline joint $known "$target"
bank restorer_bank restorer_bank estimator=$runs/joint/pipeline
joint restorer joint/pipeline restorer $known data.estimates=$runs/restorer_bank "$target"
joint reader restorer/pipeline reader $known
bank finish_bank finish_bank estimator=$runs/reader/pipeline
estimates="data.estimates=$runs/finish_bank"
joint finish reader/pipeline finish $known $estimates "$target"
joint reader finish/pipeline reader2 $known run.steps=1700 run.seed=8
bank finish_bank finish_bank estimator=$runs/reader2/pipeline
joint finish reader2/pipeline settled $known $estimates "$target" run.steps=450 run.seed=9 run.warmup_steps=30 \
  run.ema_decay=0.98 optimizer.lr=6.0e-4
half settled/pipeline before

# What cameras do: the reader.
bank cameras_bank cameras_bank
both="data.bank=[$runs/kernel_bank,$runs/cameras_bank]"
joint cameras_reader before cameras_reader $both
joint cameras_reader cameras_reader/pipeline cameras_reader2 $both run.steps=2400 run.seed=13 optimizer.lr=5.0e-4
bank cameras_estimates cameras_estimates estimator=$runs/cameras_reader/pipeline
# The same photographs, as the new reader takes them for.
[ -d $runs/cameras_finish_bank ] || cp -r $runs/finish_bank $runs/cameras_finish_bank
bank finish_bank cameras_finish_bank estimator=$runs/cameras_reader/pipeline

# The restorer, averaged with what it was (configs/bd_diff_tiny/README.md).
joint cameras before cameras1 $known $estimates
average cameras1/pipeline cameras_reader2/pipeline 0 new_reader $restorer
average before new_reader 0.5 average1 $restorer
taken="data.estimates=[$runs/cameras_finish_bank,$runs/cameras_estimates]"
joint cameras average1 cameras2 $both $taken run.steps=2000 run.seed=15 optimizer.lr=5.0e-4
joint cameras cameras2/pipeline cameras3 $both $taken run.steps=2400 run.seed=16 optimizer.lr=5.0e-4 \
  "families={delta: 0.2, gaussian: 0.3, line: 0.25, shake: 0.25}"
average before cameras3/pipeline 0.6 average3
files="noise_skew=3.0 jpeg_share=0.25 curve_share=0.4"
joint cameras average3 cameras4 $both $taken $files run.seed=17 optimizer.lr=5.0e-4 \
  "families={delta: 0.15, gaussian: 0.3, line: 0.25, shake: 0.3}"
average before cameras4/pipeline 0.75 average4 $restorer
joint cameras average4 cameras5 $both $taken $files run.steps=2400 run.seed=18 optimizer.lr=4.0e-4 \
  "families={delta: 0.15, gaussian: 0.3, line: 0.25, shake: 0.3}"
average before cameras5/pipeline 0.75 average5 $restorer
half average5 cameras "pipe.register_to_config(refinements=2)"

# Lenses out of focus, and blur that differs over the photograph.
joint lenses cameras lenses1
average cameras lenses1/pipeline 0.6 lenses_average1
joint lenses lenses_average1 lenses2 run.steps=2000 run.seed=20 \
  "families={delta: 0.15, gaussian: 0.3, line: 0.17, shake: 0.2, disc: 0.18}"
average cameras lenses2/pipeline 0.75 lenses_average2
bank cameras_bank lenses_bank count=640 noise=0.02 curve_share=0.4 jpeg=70 seed=6 \
  "families={delta: 0.08, gaussian: 0.18, line: 0.18, shake: 0.42, disc: 0.14}"
joint cameras_reader lenses_average2 lenses_reader data.bank=[$runs/lenses_bank] run.steps=1500 run.seed=21 \
  run.batch_size=4 optimizer.lr=4.0e-4 variation=0.5 $files \
  "families={delta: 0.12, gaussian: 0.25, line: 0.2, shake: 0.25, disc: 0.18}"
average lenses_average2 lenses_reader/pipeline 0.5 lenses_average3
joint lenses lenses_average3 lenses3 data.bank=[$runs/lenses_bank] run.steps=2000 run.seed=22 \
  "families={delta: 0.17, gaussian: 0.43, line: 0.17, shake: 0.05, disc: 0.18}"
average lenses_average2 lenses_reader/pipeline 0.25 lenses_average4
average lenses_average4 lenses3/pipeline 0.4 lenses_average5
average cameras lenses_average5 0.8 lenses

# Through the solve, by kernels as the finished reader and the search take them for, of all families.
half lenses solving "pipe.register_to_config(consistency=0.05, transfer_gain=0.0, most_steps=1)"
bank solve_bank solve_bank estimator=$runs/solving
joint solve solving solve1
joint solve solve1/pipeline solve2 run.steps=2600 run.batch_size=12 run.seed=24 optimizer.lr=8.0e-4 \
  "families={delta: 0.25, gaussian: 0.3, line: 0.22, disc: 0.15, astigmatism: 0.05, ghost: 0.03}"
average solving solve2/pipeline 0.5 solved $restorer
half solved model
echo "$runs/model is trained"
