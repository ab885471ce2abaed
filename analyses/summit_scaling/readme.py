def render(t,c): return ""
