// Our icons: 24x24 strokes, decoration only; what they mean is said in words beside or by a label.

const DRAWN = {
  overview: "M4 13h6V4H4zM14 20h6v-9h-6zM4 20h6v-3H4zM14 7h6V4h-6z",
  completions: "M4 5h16v11H9l-5 4z",
  distill: "M9 3h6v6l5 9a2 2 0 0 1-2 3H6a2 2 0 0 1-2-3l5-9zM7 15h10",
  jobs: "M4 19V5M4 19h16M7 15l4-5 3 3 5-7",
  deployments: "M5 4h14v6H5zM5 14h14v6H5zM8 7h.01M8 17h.01",
  playground: "M5 4l14 8-14 8z",
  evals: "M4 12l5 5L20 6M4 5h7",
  files: "M6 3h8l4 4v14H6zM14 3v4h4",
  models: "M12 3l8 4.500v9L12 21l-8-4.500v-9zM12 12l8-4.500M12 12v9M12 12L4 7.500",
  keys: "M15 9a4 4 0 1 0-4 4l-6 6v2h3v-2h2v-2h2l1-2a4 4 0 0 0 2-6z",
  usage: "M5 20V11M12 20V4M19 20v-6",
  close: "M6 6l12 12M18 6L6 18",
  search: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM20 20l-4.500-4.500",
  filter: "M4 6h16M7 12h10M10 18h4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  tag: "M4 4h8l8 8-8 8-8-8zM8 8h.01",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  check: "M5 12l5 5L19 7",
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  up: "M5 15l7-7 7 7",
  refresh: "M20 11a8 8 0 1 0-2 6M20 4v7h-7",
  pause: "M8 5v14M16 5v14",
  stop: "M6 6h12v12H6z",
  out: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
  warn: "M12 4l9 16H3zM12 10v4M12 17h.01",
  upload: "M12 20V9M7 13l5-5 5 5M5 4h14",
  external: "M14 4h6v6M20 4l-9 9M18 14v6H4V6h6",
} as const;

export type IconName = keyof typeof DRAWN;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path
        d={DRAWN[name]}
        fill="none"
        stroke="currentColor"
        strokeWidth="1.8"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
    </svg>
  );
}
