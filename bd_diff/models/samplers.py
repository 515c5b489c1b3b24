"""Which of diffusers' schedulers can sample a BD-Diff, and the last step of sampling."""

import logging

from torch import Tensor

# Schedulers of diffusers whose noise schedule is that of training, and whose `step` takes what the pipeline gives.
SAMPLERS = {
    "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler",
}  # fmt: skip
NOT_OF_CLEAN_IMAGES = (  # they raise for `prediction_type` "sample", or, as Heun, leave the image far from sharp
    "PNDMScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
FIT = "DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler or UniPCMultistepScheduler"
FEWEST_OF_PNDM = 4  # steps: its Runge-Kutta start needs them


def check_scheduler(scheduler, steps: int) -> None:
    """Raise ValueError, naming schedulers that work, for one that cannot sample in `steps` steps.

    A scheduler that diffusers does not have is let through if it has the noise level to start from.
    """
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type")
    listed, trained = scheduler.config.get("trained_betas"), scheduler.config.get("num_train_timesteps")
    of_diffusers = type(scheduler).__module__.startswith("diffusers.")
    if of_diffusers and name not in SAMPLERS or not hasattr(scheduler, "init_noise_sigma"):
        reason = "is made for another noise schedule or another kind of sampling than the model's"
    elif kind == "sample" and name in NOT_OF_CLEAN_IMAGES:
        reason = "cannot sample a model that predicts clean images (prediction_type sample)"
    elif name == "PNDMScheduler" and steps < FEWEST_OF_PNDM:
        reason = f"needs at least {FEWEST_OF_PNDM} steps, not {steps}"
    elif listed is not None and len(listed) != trained:
        reason = f"has {len(listed)} trained_betas for {trained} timesteps"
    else:
        return
    raise ValueError(f"{name} {reason}; set pipeline.scheduler to {FIT}")


def take_step(scheduler, output: Tensor, t: Tensor, latents: Tensor, last: bool) -> Tensor:
    """The latents after the step at `t`.

    The last step gives the clean latents that it predicts, if the scheduler names them: DDIM's own last timestep may
    lie above 0, which would leave noise in the image.
    """
    done = scheduler.step(output, t, latents)
    clean = done.get("pred_original_sample")
    return clean if last and clean is not None else done.prev_sample


class NoEmptyLists(logging.Filter):
    """Log filter: drops diffusers 0.42's remark, on every network that is cast, that the parts "[]" stay float32."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "should be kept in float32: []" not in record.getMessage()


logging.getLogger("diffusers.models.modeling_utils").addFilter(NoEmptyLists())
