"""Texts of sweep files with one mistake each, the line that it is in, and what must be said of it."""

# ruff: noqa: E501  (the table of malformed files reads best with a case on a line)

from __future__ import annotations

from .sweep_texts import MINIMAL, VALID, changed

MALFORMED = {
    # the shape
    "misspelt_field": (changed("seeds:", "sedes:"), 13, "sedes: unknown field; known: ", "did you mean 'seeds'?"),
    "misspelt_inner_field": (changed("steps: 150", "step: 150"), 7, "objective.step: unknown field", "'steps'"),
    "misspelt_probe": (changed("  linear: {}", "  liner: {}"), 11, "probes.liner: unknown field", "'linear'"),
    "probe_option": (changed("linear: {}", "linear: {x: 1}"), 11, "probes.linear.x: unknown field", "known: "),
    "protocol_misfit": (
        changed("linear: {}", "segmentation: {protocol: knn, balance: 0.5}"),
        11, "probes.segmentation.balance: must not be given with protocol 'knn'", "it is a setting of ridge",
    ),
    "unknown_protocol": (
        changed("linear: {}", "segmentation: {protocol: kn}"), 11, "probes.segmentation.protocol: must be ridge", "did you mean 'knn'?",
    ),
    "protocol_field_out_of_range": (
        changed("linear: {}", "segmentation: {protocol: knn, ks: [0]}"), 11, "probes.segmentation.ks[0]: must be greater than 0", "not 0",
    ),
    "wrong_type": (changed("steps: 150", "steps: many"), 7, "objective.steps: must be a whole number", "'many'"),
    "float_for_int": (changed("steps: 150", "steps: 1.5"), 7, "objective.steps: must be a whole number", "1.5"),
    "bool_for_int": (changed("steps: 150", "steps: true"), 7, "objective.steps: must be a whole number", "true"),
    "out_of_range": (changed("steps: 150", "steps: 0"), 7, "objective.steps: must be greater than 0", "not 0"),
    "unknown_recipe": (changed("recipe: dinov2_cpu", "recipe: dinov2_gpu"), 6, "objective.recipe: unknown", "'dinov2_cpu'"),
    "recipe_absent": (changed("  recipe: dinov2_cpu\n", ""), 5, "objective.recipe: is required", "known: deit3"),
    "unknown_source": (changed("source: scenes", "source: scene"), 4, "data.source: unknown source", "'scenes'"),
    "root_absent": (changed("source: scenes", "source: image_folder"), 4, "data.root: is required", "image_folder"),
    "section_no_mapping": (changed("rungs: {count: 3}", "rungs: 3"), 12, "rungs: must be a mapping", "not 3"),
    "model_null": (changed("model: {scale: nano, patch_size: 4}", "model:"), 3, "model: must be a mapping", "null"),
    "data_list": (changed("data: {source: scenes, image_size: 32}", "data: [1]"), 4, "data: must be a mapping", "[1]"),
    "unknown_scale": (
        changed("model: {scale: nano, patch_size: 4}", "model: {scale: nano}").replace("[nano, micro]", "[nano, mikro]"),
        19, "vary.model.scale[1]: must be nano, micro", "did you mean 'micro'?",
    ),
    "negative_seed": (changed("[0, 1, 2]", "[0, -1]"), 13, "seeds[1]: must be at least 0", "not -1"),
    "same_seed_twice": (changed("[0, 1, 2]", "[3, 1, 3]"), 13, "seeds: must hold each seed once", "3 comes 2 times"),
    "no_seeds": (changed("[0, 1, 2]", "[]"), 13, "seeds: must not be empty", "empty grid"),
    "zero_seeds": (changed("[0, 1, 2]", "0"), 13, "seeds: must be a list of seeds, or their number", "not 0"),
    "text_seeds": (changed("[0, 1, 2]", "three"), 13, "seeds: must be a list", "'three'"),
    "empty_components": (changed("[none, norm, qkv, norm+qkv]", "[]"), 15, "ablate.components: must not be empty", ""),
    "components_text": (changed("[none, norm, qkv, norm+qkv]", "norm"), 15, "ablate.components: must be a list", "'norm'"),
    "unknown_pruner": (changed("pruner: none", "pruner: medain"), 21, "pruning.pruner: unknown pruner", "'median'"),
    "unknown_floor": (changed("[random_init]", "[random]"), 20, "floors[0]: must be random_init", "'random_init'"),
    "bad_name": (changed("name: components", "name: ../up"), 1, "name: must be at most 100 letters", "'../up'"),
    "hidden_name": (changed("name: components", "name: .git"), 1, "name: must be at most 100 letters", "'.git'"),
    "no_processes": (changed("gpus: 0", "processes: 0"), 22, "resources.processes: must be greater than 0", "0"),
    "uneven_processes": (changed("gpus: 0", "processes: 7"), 22, "resources.processes: must divide objective.batch_size, 32", "7"),
    "shared_gpu": (changed("gpus: 0", "gpus: 0.5, processes: 2"), 22, "resources.processes: must be 1 where gpus is a share of a GPU (0.5)", "2"),
    "share_of_nothing": (changed("seeds: [0, 1, 2]", "seeds: 3\ncheckpoint_max_share: 0"), 14, "checkpoint_max_share: must be greater than 0", "0"),
    "share_in_percent": (changed("seeds: [0, 1, 2]", "seeds: 3\ncheckpoint_max_share: 5"), 14, "checkpoint_max_share: must be at most 1", "5"),
    "negative_interval": (changed("seeds: [0, 1, 2]", "seeds: 3\ncheckpoint_every_s: -1"), 14, "checkpoint_every_s: must be at least 0", "-1"),
    "sliver_of_a_gpu": (changed("gpus: 0", "gpus: 1e-5"), 22, "resources.gpus: must be 0 or at least 0.0001", "not 1e-05"),
    "sliver_of_a_cpu": (changed("cpus: 1", "cpus: 1e-320"), 22, "resources.cpus: must be at least 0.0001", "not 1e-320"),
    "part_gpus": (changed("gpus: 0", "gpus: 1.5"), 22, "resources.gpus: must be a whole number", "1.5"),
    "part_gpus_of_a_scale": (changed("gpus: 0", "nano: {gpus: 2.5}"), 22, "resources.nano.gpus: must be a whole number", "2.5"),
    "unknown_scale_of_resources": (changed("gpus: 0", "mikro: {gpus: 1}"), 22, "resources.mikro: unknown field", "did you mean 'micro'?"),
    "rays_own_resource": (changed("gpus: 0", "custom: {GPU: 1}"), 22, "resources.custom: must name resources of your own", "'GPU'"),
    "negative_retries": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_retries: -1"), 14, "max_retries: must be at least 0", "-1"),
    "half_a_retry": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_retries: 1.5"), 14, "max_retries: must be a whole number", "1.5"),
    "no_stall_timeout": (changed("seeds: [0, 1, 2]", "seeds: 3\nstall_timeout_s: 0"), 14, "stall_timeout_s: must be greater than 0", "0"),
    "no_time": (changed("seeds: [0, 1, 2]", "seeds: 3\ntime_budget_h: 0"), 14, "time_budget_h: must be greater than 0", "0"),
    "endless_time": (changed("seeds: [0, 1, 2]", "seeds: 3\ntime_budget_h: .inf"), 14, "time_budget_h: must be a finite number", ".inf"),
    "no_gpu_hours": (changed("seeds: [0, 1, 2]", "seeds: 3\nmax_gpu_hours: -2"), 14, "max_gpu_hours: must be greater than 0", "-2"),
    "unknown_priority": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [norm@all, qvk@all]"), 14, "priority[1]: must be an arm of the sweep (", "not 'qvk@all' (did you mean 'qkv@all'?)"),
    "priority_of_the_baseline": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [none]"), 14, "priority[0]: must be an arm of the sweep", "not 'none'"),
    "priority_twice": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: [qkv@all, qkv@all]"), 14, "priority[1]: must name each arm once", "'qkv@all' again"),
    "priority_no_list": (changed("seeds: [0, 1, 2]", "seeds: 3\npriority: qkv@all"), 14, "priority: must be a list", "'qkv@all'"),
    "nan": (changed("steps: 150", "steps: .nan"), 7, "objective.steps: must be a finite number", ".nan"),
    "duplicate_key": (VALID + "seeds: [1]\n", 23, "seeds: duplicate key", "line 13"),
    "empty_axis": (changed("[nano, micro]", "[]"), 19, "vary.model.scale: must not be empty", ""),
    "axis_no_list": (changed("[nano, micro]", "nano"), 19, "vary.model.scale: must be a list", "'nano'"),
    "axis_twice": (changed("[nano, micro]", "[nano, micro, nano]"), 19, "vary.model.scale[2]: must differ", "'nano' again"),
    "axis_that_is_none_and_no_list": (changed("model.scale: [nano, micro]", "seeds: {x: 1}"), 19, "vary.seeds: must be a field of model", ""),
    "axis_unknown_field": (changed("model.scale: [", "model.scal: ["), 19, "vary.model.scal: unknown field", "'scale'"),
    "axis_ablated": (changed("model.scale: [nano, micro]", "ablate.init: [copy]"), 19, "vary.ablate.init: must be a field", "ablate"),
    "axis_seeds": (changed("model.scale: [nano, micro]", "seeds: [1]"), 19, "vary.seeds: must be a field of model", "seeds"),
    "axis_misfit": (
        changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, deit3_cpu]"),
        19, "vary.objective.recipe[1]: 'deit3_cpu' does not go with objective.local_size", "unknown field",
    ),
    "axis_unknown_to_one_kind": (
        changed("model.scale: [nano, micro]", "objective.recipe: [dinov2_cpu, deit3_cpu]\n  objective.ema: [0.9, 0.8]").replace("  local_size: 16\n", ""),
        18, "vary.objective.recipe[1]: 'deit3_cpu' does not go with objective.ema", "unknown field",
    ),
    "axis_path": (
        MINIMAL + "data: {source: image_folder}\nvary:\n  data.root: [/a, /b]\n", 5, "vary.data.root: says where", "",
    ),
    "axis_resource": (
        MINIMAL + "vary:\n  objective.micro_batch: [4, 8]\n", 4, "vary.objective.micro_batch: says how to compute", "",
    ),
    "rule_between_fields": (
        changed("steps: 150", "steps: 150\n  global_scale: [0.9, 0.1]"),
        8, "objective.global_scale: must be [low, high]", "[0.9, 0.1]",
    ),
    "axis_misfit_of_two": (
        changed("model.scale: [nano, micro]", "objective.lr: [1, 2]\n  objective.recipe: [dinov2, deit3]"),
        20, "vary.objective.recipe[1]: 'deit3' does not go with objective.local_size", "unknown field",
    ),
    # joint settings
    "vary_text": (changed("\n  model.scale: [nano, micro]", " nano"), 18, "vary: must be a mapping (field: [values]) or a list of mappings (field: value)", "not 'nano'"),
    "no_joint_settings": (changed("\n  model.scale: [nano, micro]", " []"), 18, "vary: must not be empty", "an empty grid"),
    "empty_joint_setting": (changed("\n  model.scale: [nano, micro]", "\n- {model.scale: nano}\n- {}"), 20, "vary[1]: must not be empty", ""),
    "joint_setting_no_mapping": (changed("\n  model.scale: [nano, micro]", "\n- {model.scale: nano}\n- micro"), 20, "vary[1]: must be a mapping", "not 'micro'"),
    "joint_setting_of_no_field": (changed("\n  model.scale: [nano, micro]", "\n- {model.scale: nano}\n- {seeds: 1}"), 20, "vary[1].seeds: must be a field of model", ""),
    "joint_setting_misspelt": (changed("\n  model.scale: [nano, micro]", "\n- {model.scal: nano}\n- {model.scale: micro}"), 19, "vary[0].model.scal: unknown field", "did you mean 'scale'?"),
    "joint_setting_out_of_range": (
        changed("\n  model.scale: [nano, micro]", "\n- {model.scale: nano, objective.lr: 1}\n- model.scale: micro\n  objective.lr: -1"),
        21, "vary[1].objective.lr: must be greater than 0", "not -1",
    ),
    "joint_setting_with_no_values": (changed("\n  model.scale: [nano, micro]", "\n- {model.scale: []}"), 19, "vary[0].model.scale: must not be empty", ""),
    "joint_setting_with_a_value_twice": (changed("\n  model.scale: [nano, micro]", "\n- {objective.lr: [1, 2, 1.0]}"), 19, "vary[0].objective.lr[2]: must differ", "1.0 again"),
    "joint_setting_twice": (
        changed("\n  model.scale: [nano, micro]", "\n- {model.scale: micro, objective.lr: 1}\n- {objective.lr: [2, 1.0], model.scale: micro}"),
        20, "vary[1]: makes a group that vary[0] makes already", "",
    ),
    "joint_setting_that_spells_the_file_out": (
        changed("\n  model.scale: [nano, micro]", "\n- {objective.lr: 1}\n- {model.scale: micro}\n- {model.scale: nano, objective.lr: 1}"),
        21, "vary[2]: makes a group that vary[0] makes already", "",
    ),
    "joint_misfit": (
        changed("\n  model.scale: [nano, micro]", "\n- {objective.recipe: dinov2_cpu}\n- {objective.lr: 1, objective.recipe: deit3_cpu}"),
        20, "vary[1].objective.recipe: 'deit3_cpu' does not go with objective.local_size: unknown field", "",
    ),
    "joint_misfit_of_what_is_given_along": (
        changed("\n  model.scale: [nano, micro]", "\n- {objective.ema: 0.9}\n- {objective.recipe: deit3_cpu, objective.ema: 0.8}").replace("  local_size: 16\n", ""),
        19, "vary[1].objective.recipe: 'deit3_cpu' does not go with objective.ema: unknown field", "",
    ),
    "joint_setting_that_lacks_the_kind": (
        "objective: {steps: 9}\nprobes: {knn: }\nvary:\n- {objective.recipe: mae_cpu}\n- {model.scale: micro}\n",
        5, "vary[1]: objective.recipe: is required; known: deit3", "",
    ),
    "joint_settings_that_differ_in_a_path": (
        MINIMAL + "vary:\n- {data.source: image_folder, data.root: /a}\n- {data.source: image_folder, data.root: /b}\n",
        5, "vary[1]: makes a group that vary[0] makes already", "",
    ),
    "joint_setting_with_paths": (
        MINIMAL + "vary:\n- {data.source: scenes}\n- {data.source: image_folder, data.root: [/a, /b]}\n", 5, "vary[1].data.root: says where", "",
    ),
    "joint_size": (
        changed("\n  model.scale: [nano, micro]", "\n- {model.scale: nano}\n- {model.scale: micro, data.image_size: 34}"),
        20, "vary[1].data.image_size: model.patch_size must divide data.image_size, 34", "not 4",
    ),
    "too_many_joint_groups": (
        changed("\n  model.scale: [nano, micro]", f"\n- {{model.scale: micro}}\n- {{objective.lr: {list(range(1, 401))}, objective.steps: {list(range(200, 450))}}}"),
        18, "vary: must make at most 100000 groups", "",
    ),
    # what must fit together
    "patch_size": (changed("patch_size: 4", "patch_size: 5"), 3, "model.patch_size: must divide data.image_size, 32", "not 5"),
    "varied_image_size": (
        changed("model.scale: [nano, micro]", "data.image_size: [32, 34]"),
        19, "vary.data.image_size[1]: model.patch_size must divide", "34",
    ),
    "local_size": (changed("local_size: 16", "local_size: 18"), 8, "must be a multiple of model.patch_size, 4", "18"),
    "local_size_beyond": (changed("local_size: 16", "local_size: 64"), 8, "must be at most data.image_size, 32", "64"),
    "unknown_component": (changed("norm, qkv, norm", "nrom, qkv, norm"), 15, "ablate.components[1]: specialization 'nrom'", "'norm"),
    "unknown_range": (changed("[first-third, all]", "[frist-third]"), 16, "ablate.blocks[0]: unknown block range", "'first-third'"),
    "range_beyond": (changed("qkv@first-third]", "qkv@2:9]"), 17, "<= 6, the depth of the model", "scale 'nano'"),
    "range_beyond_one_scale": (
        changed("qkv@first-third]", "qkv@2:9]").replace("[nano, micro]", "[tiny, nano]"),
        17, "ablate.specialize[0]: block range '2:9'", "scale 'nano'",
    ),
    "blocks_alone": (changed("  components: [none, norm, qkv, norm+qkv]\n", ""), 15, "ablate.blocks: needs ablate.components", ""),
    "unknown_comparator": (
        changed("  blocks:", "  comparators: [jumb]\n  blocks:"),
        16, "ablate.comparators[0]: unknown comparator; known: class_attention", "did you mean 'jumbo'?",
    ),
    "unknown_comparator_in_a_mapping": (
        changed("  blocks:", "  comparators: [{comparator: jumb}]\n  blocks:"),
        16, "ablate.comparators[0].comparator: unknown comparator; known: class_attention", "did you mean 'jumbo'?",
    ),
    "comparator_unnamed": (
        changed("  blocks:", "  comparators: [{slots: 4}]\n  blocks:"),
        16, "ablate.comparators[0]: comparator is required; known: class_attention", "",
    ),
    "comparator_misspelt_field": (
        changed("  blocks:", "  comparators:\n  - comparator: jumbo\n    slot: 4\n  blocks:"),
        18, "ablate.comparators[0].slot: unknown field; known: comparator, slots, mlp_ratio", "did you mean 'slots'?",
    ),
    "comparator_field_out_of_range": (
        changed("  blocks:", "  comparators: [jumbo, {comparator: token_pooling, keep: 0}]\n  blocks:"),
        16, "ablate.comparators[1].keep: must be greater than 0", "not 0",
    ),
    "comparator_recipe": (
        changed("  blocks:", "  comparators: [jumbo, {comparator: patch_diversification, mixing_weight: 1}]\n  blocks:"),
        16, "ablate.comparators[1]: mixing_weight must be 0 with a recipe that does not mix", "'dinov2_cpu' as it is set, not 1",
    ),
    "dense_needs": (
        "data: {source: image_folder, root: /x}\nprobes: {knn: }\nobjective:\n  recipe: deit3_cpu\n  dense_weight: 0.5\n",
        5, "objective.dense_weight: recipe 'deit3_cpu' learns from masks", "source 'image_folder' has labels",
    ),
    "recipe_needs": (
        "data: {source: masks, root: /x}\nprobes: {segmentation: }\nobjective: {recipe: deit3_cpu}\n",
        3, "objective.recipe: recipe 'deit3_cpu' learns from labels", "source 'masks' has masks",
    ),
    "probe_needs": (
        "data: {source: masks, root: /x}\nobjective: {recipe: dinov2_cpu}\nprobes:\n  segmentation:\n  knn:\n",
        5, "probes.knn: predicts labels", "source 'masks' has masks",
    ),
    "weights_of_comparators": (
        "objective: {recipe: dinov2_cpu}\nprobes: {knn: }\nkeep_weights: true\n"
        "ablate: {comparators: [patch_diversification, jumbo]}\n",
        3, "keep_weights: must be false with comparator 'jumbo'", "",
    ),
    "probe_data_needs": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {source: masks, root: /x}\n",
        4, "probes.knn.data: must have labels", "source 'masks' has masks",
    ),
    "probe_data_size": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  segmentation:\n    data:\n      source: masks\n"
        "      root: /x\n      image_size: 30\n",
        7, "probes.segmentation.data.image_size: must be a multiple of model.patch_size, 4", "not 30",
    ),
    "probe_data_field": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  depth:\n    data:\n      source: depth\n      root: /x\n      wrokers: 2\n",
        7, "probes.depth.data.wrokers: unknown field; known: image_size", "did you mean 'workers'?",
    ),
    "probe_data_rule": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  detection:\n    data:\n      source: coco\n      root: /x\n"
        "      keep: encoded\n      probe_size: 40000\n",
        8, "probes.detection.data.probe_size: must be at most 32767 for boxes", "not 40000",
    ),
    "probe_data_unknown": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {source: imagefolder}\n",
        4, "probes.knn.data", "imagefolder",
    ),
    "probe_data_of_no_kind": (
        "objective: {recipe: dinov2_cpu}\nprobes:\n  knn:\n    data: {}\n",
        4, "probes.knn.data.source: is required; known: ade20k", "webdataset",
    ),
    "line_break_in_a_key": ('objective: {recipe: dinov2_cpu}\nprobes: {knn: }\n"a\\nb": 1\n', 3, r"a\nb: unknown field", ""),
    "no_probes": (changed("probes:\n  knn:\n  linear: {}\n", "probes: {}\n"), 9, "probes: must switch on at least one", "knn"),
    "rung_probe_off": (changed("{count: 3}", "{probes: [segmentation]}"), 12, "rungs.probes[0]: must be a probe that is on", "knn, linear"),
    "rung_probe_twice": (changed("{count: 3}", "{probes: [knn, knn]}"), 12, "rungs.probes[1]: must name each probe once", ""),
    "rungs_beyond": (changed("{count: 3}", "{count: 150}"), 12, "rungs.count: must be less than objective.steps, 150", "not 150"),
    "steps_and_epochs": (changed("steps: 150", "steps: 150\n  epochs: 2"), 8, "objective.epochs: must not be given beside steps, 150", "not epochs 2"),
    "steps_at_their_default_and_epochs": (
        changed("steps: 150", "steps: 1200\n  epochs: 2"),
        8, "objective.epochs: must be left out where objective.steps, 1200, is given", "not 2",
    ),
    "steps_and_varied_epochs": (
        changed("steps: 150", "steps: 1200").replace("model.scale: [nano, micro]", "objective.epochs: [2]"),
        19, "vary.objective.epochs[0]: objective.epochs must be left out where objective.steps, 1200, is given", "not 2",
    ),
    "epochs_beyond": (changed("steps: 150", "epochs: 1e308"), 7, "objective.epochs: must be at most 1e+06", "not 1e+308"),
    "epochs_of_none": (changed("steps: 150", "epochs: 0"), 7, "objective.epochs: must be greater than 0", "not 0"),
    "pruning_without_rungs": (
        changed("{count: 3}", "{count: 0}").replace("pruner: none", "pruner: median"),
        12, "rungs.count: must be at least 1, since pruning", "",
    ),
    "pruning_metric": (
        changed("pruner: none", "pruner: median, metric: knn_top"),
        21, "pruning.metric: must be a metric of the rungs' probes (knn_top1)", "did you mean 'knn_top1'?",
    ),
    "too_many_trials": (changed("[0, 1, 2]", "100000"), 1, "at most 100000 trials", "not 1800000"),
    "too_many_crossed": (
        changed("[none, norm, qkv, norm+qkv]", str([f"x{n}" for n in range(1000)])).replace("[first-third, all]", str([f"0:{n}" for n in range(1000)])),
        14, "ablate: components, blocks and modes must make at most 100000 arms, not 1000000", "",
    ),
    "too_many_written_out": (
        changed("[norm@all+qkv@first-third]", str([f"x{n}" for n in range(1000)]) + "\n  modes: " + str([f"lora:{n}" for n in range(1000)])),
        14, "ablate: specialize and modes must make at most 100000 arms, not 1000000", "",
    ),
    "too_many_groups": (
        changed("model.scale: [nano, micro]", f"objective.lr: {list(range(1, 401))}\n  objective.steps: {list(range(200, 600))}"),
        18, "vary: must make at most 100000 groups", "",
    ),
}  # fmt: skip
