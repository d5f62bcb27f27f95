// Every page: its address, its name, its icon, and the code that is loaded when it is first visited.

import type { ComponentType } from "react";
import type { TextKey } from "../i18n";
import type { IconName } from "../ui";
import { page } from "./code";

export interface PageEntry {
  path: string;
  /** How the address of pages below it looks; parameters reach the page through `useParams`. */
  below?: string[];
  name: TextKey;
  icon: IconName;
  view: ComponentType;
}

export const PAGES: PageEntry[] = [
  { path: "/", name: "overview.title", icon: "overview", view: page(() => import("../pages/overview")) },
  {
    path: "/completions",
    name: "completions.title",
    icon: "completions",
    view: page(() => import("../pages/completions")),
  },
  { path: "/distill", name: "distill.title", icon: "distill", view: page(() => import("../pages/distill")) },
  {
    path: "/jobs",
    below: ["/jobs/:id"],
    name: "jobs.title",
    icon: "jobs",
    view: page(() => import("../pages/jobs")),
  },
  {
    path: "/deployments",
    name: "deployments.title",
    icon: "deployments",
    view: page(() => import("../pages/deployments")),
  },
  {
    path: "/playground",
    name: "playground.title",
    icon: "playground",
    view: page(() => import("../pages/playground")),
  },
  {
    path: "/evals",
    below: ["/evals/:id", "/evals/:id/runs/:run"],
    name: "evals.title",
    icon: "evals",
    view: page(() => import("../pages/evals")),
  },
  { path: "/models", name: "models.title", icon: "models", view: page(() => import("../pages/models")) },
  { path: "/files", name: "files.title", icon: "files", view: page(() => import("../pages/files")) },
  { path: "/usage", name: "usage.title", icon: "usage", view: page(() => import("../pages/usage")) },
  { path: "/keys", name: "keys.title", icon: "keys", view: page(() => import("../pages/keys")) },
];
