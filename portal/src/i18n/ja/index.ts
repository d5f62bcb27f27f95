import type english from "../en";
import common from "./common.json";
import completions from "./completions.json";
import deploy from "./deploy.json";
import deployments from "./deployments.json";
import distill from "./distill.json";
import evals from "./evals.json";
import files from "./files.json";
import jobs from "./jobs.json";
import keys from "./keys.json";
import models from "./models.json";
import overview from "./overview.json";
import playground from "./playground.json";
import signin from "./signin.json";
import usage from "./usage.json";

// A text that English has and Japanese lacks is a type error here.
export default {
  common,
  completions,
  deploy,
  deployments,
  distill,
  evals,
  files,
  jobs,
  keys,
  models,
  overview,
  playground,
  signin,
  usage,
} satisfies typeof english;
