"""The table rows and examples of the contract, by table; names only."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ROWS: dict[str, dict[str, tuple[str, ...]]] = {
    "configuration": {
        "WorldModelConfig": _names(
            "model_type model_name obs_shape action_dim action_type observation_modalities "
            "action_spec latent_type latent_dim deter_dim stoch_dim dynamics_type hidden_dim "
            "learning_rate grad_clip device dtype"
        ),
        "LatentType": _names("DETERMINISTIC GAUSSIAN CATEGORICAL VQ SIMNORM"),
        "DynamicsType": _names("RSSM MLP TRANSFORMER SSM"),
        "config methods": _names("to_dict from_dict save load"),
        "config example": _names("84x84x3"),
        "dreamer presets": _names("ci size12m size25m size50m size100m size200m official_xl"),
        "dreamer fields": _names(
            "stoch_discrete stoch_classes encoder_type decoder_type cnn_depth cnn_kernels "
            "learning_rate grad_clip kl_free loss_scales use_symlog use_twohot reward_num_bins "
            "reward_bin_min reward_bin_max"
        ),
        "actor-critic fields": _names(
            "actor_critic imagination_horizon actor_lr critic_lr gamma lambda_ "
            "slow_critic_fraction actor_entropy_coef return_normalization"
        ),
        "loss_scales": _names("reconstruction kl_dynamics kl_representation reward continue"),
        "dreamer from_size": _names("size kwargs raises"),
        "dreamer examples": _names("preset custom override"),
        "tdmpc2 presets": _names("ci 5m proof_5m 5m_legacy 19m 48m 317m"),
        "tdmpc2 fields": _names(
            "simnorm_dim num_hidden_layers task_dim num_tasks num_q_networks horizon num_samples "
            "num_elites temperature momentum gamma use_decoder"
        ),
        "tdmpc2 rules": _names("latent_dim num_elites temperature momentum gamma"),
        "tdmpc2 from_size": _names("size kwargs raises"),
        "tdmpc2 examples": _names("preset custom large"),
    },
    "training": {
        "import paths": _names("worldflux worldflux.training core.config training.config"),
        "model configs": _names("dreamer tdmpc2"),
        "tuned dreamer fields": _names(
            "deter_dim stoch_discrete stoch_classes hidden_dim cnn_depth kl_free kl_balance"
        ),
        "tuned tdmpc2 fields": _names(
            "latent_dim hidden_dim num_hidden_layers num_q_networks horizon num_samples num_elites"
        ),
        "factory overrides": _names("example unknown_field"),
        "training configuration": _names(
            "total_steps batch_size sequence_length learning_rate grad_clip device mixed_precision"
        ),
        "useful training fields": _names(
            "weight_decay warmup_steps log_interval eval_interval save_interval "
            "gradient_accumulation_steps optimizer scheduler ema_decay model_overrides"
        ),
        "worldflux.toml": _names(
            "training data gameplay online_collection visualization inference verify"
        ),
        "strict loader": _names("top_level section family"),
        "save and load": _names("model training"),
        "environment": _names("CUDA_VISIBLE_DEVICES create_world_model device_auto"),
    },
    "factory": {
        "first example": _names("size12m"),
        "parameters": _names("model obs_shape action_dim device api_version kwargs"),
        "presets and ci": _names("dreamerv3:size12m tdmpc2:5m dreamer:ci tdmpc2:ci"),
        "aliases": _names(
            "dreamer dreamer-ci dreamer-small dreamer-medium dreamer-large tdmpc tdmpc2-ci "
            "tdmpc-small tdmpc-medium tdmpc-large MODEL_ALIASES"
        ),
        "load from path": _names("relative absolute"),
        "overrides": _names("hidden_dim num_q_networks"),
        "returns": _names("native delegated"),
        "delegated example": _names("handle trainer"),
        "list_models": _names("names verbose public all"),
        "list_models parameters": _names("verbose maturity surface"),
        "dreamer presets": _names(
            "dreamer:ci dreamerv3:size12m dreamerv3:size25m dreamerv3:size50m dreamerv3:size100m "
            "dreamerv3:size200m dreamerv3:official_xl"
        ),
        "tdmpc2 presets": _names(
            "tdmpc2:ci tdmpc2:5m tdmpc2:proof_5m tdmpc2:5m_legacy tdmpc2:19m tdmpc2:48m tdmpc2:317m"
        ),
        "parity roles": _names("ci official_xl proof_5m 5m 5m_legacy rest"),
        "commands": _names("public all"),
    },
    "presets": {
        "DreamerV3Config": _names(
            "obs_shape action_dim deter_dim stoch_dim num_categories cnn_depth mlp_layers "
            "hidden_dim kl_balance kl_free"
        ),
        "TDMPC2Config": _names("obs_shape action_dim latent_dim num_q mlp_layers hidden_dim"),
        "examples": _names("dreamer tdmpc2 from_size_dreamer from_size_tdmpc2"),
        "TrainingConfig": _names(
            "total_steps batch_size sequence_length learning_rate weight_decay grad_clip "
            "warmup_steps log_interval eval_interval save_interval device seed"
        ),
        "TrainingConfig example": _names("example"),
        "CheckpointCallback": _names("save_dir save_every keep_last save_best monitor"),
        "LoggingCallback": _names("log_dir log_to_console log_to_tensorboard"),
        "EarlyStoppingCallback": _names("monitor patience min_delta mode"),
        "callback examples": _names("checkpoint logging early_stopping"),
        "environment": _names("WORLDLOOM_CACHE_DIR CUDA_VISIBLE_DEVICES"),
        "config.json": _names(
            "model_type obs_shape action_dim deter_dim stoch_dim num_categories cnn_depth "
            "mlp_layers"
        ),
        "loading": _names("from_dict from_json model"),
    },
    "protocol": {
        "components": _names(
            "observation_encoder action_conditioner dynamics_model decoder_module rollout_executor"
        ),
        "attributes": _names(
            "capabilities observation_encoder action_conditioner dynamics_model decoder_module "
            "rollout_executor composable_support"
        ),
        "encode": _names("obs deterministic returns raises"),
        "transition": _names("state action conditions deterministic returns raises"),
        "decode": _names("state conditions returns raises"),
        "rollout": _names("initial_state action_sequence conditions deterministic mode returns"),
        "loss": _names("batch returns abstract"),
        "supports": _names("capability"),
        "properties": _names("supports_reward supports_continue supports_planning"),
        "model example": _names("example"),
        "ActionPayload": _names("kind tensor tokens latent text extras"),
        "ActionPayload methods": _names("primary validate"),
        "ActionPayload examples": _names("continuous discrete token"),
        "ConditionPayload": _names("text_condition goal spatial camera_pose extras"),
        "WorldModelInput": _names("observations context action conditions"),
        "ModelOutput": _names("predictions state uncertainty aux prediction_spec sequence_layout"),
        "ModelOutput example": _names("example"),
        "LossOutput": _names("loss components metrics"),
        "LossOutput example": _names("example"),
        "Trajectory": _names("states actions rewards values continues state_spec sequence_layout"),
        "Trajectory properties": _names("horizon batch_size"),
        "Trajectory methods": _names("to_tensor to detach"),
        "Trajectory example": _names("example"),
    },
}
